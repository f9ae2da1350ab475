"""The lab with a stack; the tests follow the stack's life cycle, in the order of the files and of each file."""

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
    "test_tls",
    "test_updates",
    "test_backups",
    "test_drill",
    "test_restore",
    "test_traps",
    "test_machines",
    "test_key_rotation",
    "test_faults",
    "test_doctor",
    "test_adoption",
    "test_upgrade",
    "test_plain",
    "test_end",
    "test_sturdiness",
)
"""The files share one stack, from its first `up` to `destroy`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.parent == HERE else -1)


@pytest.fixture(scope="session")
def outputs() -> dict[str, Any]:
    """The outputs of the stack, including secrets. Brings the stack up if it is not."""
    done = lab("up")
    assert done.status == 0, done.output
    return stack.outputs(show_secrets=True)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Records the seconds until this test's fault was repaired, for the table in docs/operations.md."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "`measured` requires the mark `fault`"

    def keep(seconds: float, case: str = "") -> None:
        record(mark.args[0], case, seconds)

    return keep


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """Lists everything of this clone's lab that still exists in the kernel."""
    return look_for_leftovers
