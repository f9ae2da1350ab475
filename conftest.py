"""Which tests can run on this machine.

A test that runs programs names them: `@pytest.mark.needs("ruby")`, and `root=True` where only root can; a fixture asks
`need`. `make test` installs them for root on Debian, so one that is missing there is an error. Elsewhere the test is
skipped.
"""

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable

import pytest

# Pulumi's SDK makes very many objects: at the default of 700, a third of a run of the program is garbage collection.
gc.set_threshold(50_000)

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # the latter are not on the PATH of others than root
INSTALLS = os.geteuid() == 0 and shutil.which("apt-get") is not None


def _need(*tools: str, root: bool = False) -> None:
    if root and os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [tool for tool in tools if shutil.which(tool, path=PATH) is None]:
        give_up = pytest.fail if INSTALLS else pytest.skip
        give_up(f"needs {', '.join(missing)}: make test-tools")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose programs are not here."""
    for mark in item.iter_markers("needs"):
        _need(*mark.args, **mark.kwargs)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how many tests were skipped for which reason."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"{number} {reason[0].lower()}{reason[1:]}")


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Called by a fixture with the programs it runs."""
    return _need
