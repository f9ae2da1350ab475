"""Which tests can run on this machine.

A test that runs programs lists them: `@pytest.mark.needs("ruby")`, with `root=True` if it must run as root; a fixture
calls `need`. For root on Debian, `make test` installs them, so a missing program is an error there. Elsewhere the test
is skipped.
"""

import functools
import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable

import botocore.session  # type: ignore[import-untyped]
import pytest
import yaml

# Pulumi's SDK creates many objects: at the default of 700, garbage collection takes a third of a run of the program.
gc.disable()
gc.set_threshold(1_000_000)

# The tests read the same files hundreds of times, and libyaml is ten times as fast as the parser in Python.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]

# Each session of boto3, of which moto makes many, would parse the descriptions of the services again: EC2's for 0.4 s.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # the last two are only on root's PATH
INSTALLS = os.geteuid() == 0 and shutil.which("apt-get") is not None


def _need(*tools: str, root: bool = False) -> None:
    if root and os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [tool for tool in tools if shutil.which(tool, path=PATH) is None]:
        give_up = pytest.fail if INSTALLS else pytest.skip
        give_up(f"needs {', '.join(missing)}: make test-tools")


def pytest_collection_finish() -> None:
    """Begin to collect garbage. What was imported never becomes garbage."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose programs are missing."""
    for mark in item.iter_markers("needs"):
        _need(*mark.args, **mark.kwargs)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how many tests were skipped for which reason."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"{number} {reason[0].lower()}{reason[1:]}")


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """A function that a fixture calls with the programs it runs."""
    return _need
