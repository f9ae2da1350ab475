import pytest
from moto import mock_aws

from lab.cloud.patches import state
from lab.tests.cloud import Cloud


@pytest.fixture
def cloud():
    with mock_aws():
        state.target_health.clear()
        yield Cloud()
