"""The checkouts of omnibus-gitlab that OMNIBUS lists; without one the tests stop with a usage error."""

import dataclasses
import ipaddress
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import host
from tests.contract.reconfigure import Checkout, Reconfigured, reconfigure
from tests.test_configuration import rendered
from tests.test_settings import load
from tools import omnibus

CHECKOUTS = pytest.StashKey[list[Checkout]]()
OWNERS_LINES = "# the owner's lines"
SAID = pytest.StashKey[dict[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    folders = os.environ.get("OMNIBUS", "").split()
    try:
        if not folders:
            raise ValueError("OMNIBUS is not set to a checkout of omnibus-gitlab")
        config.stash[CHECKOUTS] = [Checkout(Path(folder).resolve()) for folder in folders]
    except ValueError as error:
        raise pytest.UsageError(f"{error}. Get one: {omnibus.how_to_clone()}") from None
    config.stash[SAID] = {}
    host.ensure(host.CONTRACT_TOOLS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    checkouts = metafunc.config.stash[CHECKOUTS]
    if "checkout" in metafunc.fixturenames:
        metafunc.parametrize("checkout", checkouts, ids=str, scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for version, said in config.stash.get(SAID, {}).items():
        terminalreporter.section(f"Messages of GitLab {version} about our gitlab.rb")
        for line in said or ["nothing"]:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def judged(checkout, tmp_path_factory) -> Callable[..., Reconfigured]:
    """Reconfigure with the gitlab.rb of these settings. `line` replaces the owner's lines without validation, `network`
    replaces the stack's network.
    """
    known: dict[str, Reconfigured] = {}

    def judge(line: str = "", network: str = "", **changes: Any) -> Reconfigured:
        key = json.dumps([line, network, changes])
        if key not in known:
            settings = load(**{"gitlabVersion": checkout.version, "gitlabRb": OWNERS_LINES} | changes)
            if network:
                settings = dataclasses.replace(settings, network=ipaddress.IPv4Network(network))
            text = rendered(settings).replace(OWNERS_LINES, line)
            known[key] = reconfigure(checkout, text, tmp_path_factory.mktemp("reconfigured"))
        return known[key]

    return judge
