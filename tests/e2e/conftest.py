"""The lab with the stack on it, for tests that walk through a stack's life in the order they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import stack
from tests.e2e.leftovers import look as look_for_leftovers
from tests.e2e.measured import record
from tests.e2e.operations import lab

HERE = Path(__file__).parent

ORDER = (
    "test_pull_requests",
    "test_stack",
    "test_jobs",
    "test_reachability",
    "test_permissions",
    "test_registry",
    "test_updates",
    "test_traps",
    "test_machines",
    "test_key_rotation",
    "test_faults",
    "test_doctor",
    "test_adoption",
    "test_upgrade",
    "test_end",
    "test_sturdiness",
)
"""From the first `up` to `destroy`: the files share one stack."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.parent == HERE else -1)


@pytest.fixture(scope="session")
def outputs() -> dict[str, Any]:
    """The stack is up, brought up if it was not; its outputs, secrets included."""
    done = lab("up")
    assert done.status == 0, done.output
    return stack.outputs(show_secrets=True)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keeps the seconds that this test's fault took to heal, for the table of docs/operations.md."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "only a test of a fault measures"

    def keep(seconds: float, case: str = "") -> None:
        record(mark.args[0], case, seconds)

    return keep


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """Names everything of this clone's lab that the kernel still knows."""
    return look_for_leftovers
