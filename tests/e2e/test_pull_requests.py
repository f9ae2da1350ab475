"""The report that a reviewer gets about a change of the program, and its errors. Needs only the API, no machines."""

import re

import pytest

from lab.preview import commands, engine
from lab.workspace import LabError
from tests.e2e.operations import lab
from tests.e2e.programs import Edits, changed_program

FLOW: Edits = {
    "configuration/flows.py": [
        (
            "    if settings.smtp and ",
            '    yield Flow(Place.RUNNER, Place.INTERNET, 8443, "artifacts of jobs")\n    if settings.smtp and ',
        )
    ]
}
EGRESS: Edits = {
    "Pulumi.dev.yaml": [
        (
            "  gitlab:tags:",
            """\
  gitlab:extraEgress:
    - {place: server, port: 636, networks: [10.20.0.0/24], why: directory}
    - {place: server, protocol: udp, port: 123, networks: [192.0.2.123/32], why: time}
  gitlab:tags:""",
        )
    ]
}
TYPE: Edits = {"Pulumi.yaml": [("default: t3.large", "default: t3.xlarge")]}
VERSION: Edits = {"Pulumi.yaml": [("default: 17.10.4", "default: 17.11.7")]}
DOCSTRING: Edits = {"components/network.py": [("VPC, subnet and the route to the internet.", "The stack's network.")]}
IMAGE: Edits = {"Pulumi.dev.yaml": [("  gitlab:tags:", "  gitlab:amiId: ami-0a1b2c3d4e5f60718\n  gitlab:tags:")]}
VOLUME: Edits = {"Pulumi.dev.yaml": [("  gitlab:tags:", "  gitlab:registryDataVolumeSize: 250\n  gitlab:tags:")]}
KEY_PAIR: Edits = {
    "Pulumi.dev.yaml": [("AAAAC3NzaC1lZDI1NTE5AAAAIChxtHKvmj5f", "AAAAC3NzaC1lZDI1NTE5AAAAICixtHKvmj5f")]
}
KEY_PAIR_NOT_IGNORED: Edits = {"components/virtual_machine.py": [('"ami", "keyName"]', '"ami"]')]}
ZONE: Edits = {"Pulumi.dev.yaml": [("eu-central-1a", "eu-central-1b")]}
MISSPELT: Edits = {"__main__.py": [("network = Network(", "network = Newtork(")]}

QUIET = "No machine, data volume or address is replaced or deleted."
ACCEPTANCE = {"registry-find-image", "runner-run-checks", "server-run-pipeline", "server-run-checks"}


def difference(*changes: Edits) -> str:
    """The report about this clone's program with these edits, compared with the last commit, as Markdown."""
    with changed_program(*changes) as folder:
        return commands.preview_diff("dev", "HEAD", folder)


def rows(text: str, *, steps: bool = False) -> list[list[str]]:
    """The table of resources, either without the remote steps or only those: operation, name, changes."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    table = [[cell.strip(" `") if i < 3 else cell.strip() for i, cell in enumerate(line)] for line in lines]
    return [
        [what, name, changed]
        for what, type_, name, changed in (row for row in table if len(row) == 4)
        if ":" in type_ and type_.startswith("command:") is steps
    ]


@pytest.mark.long
def test_a_way_out_of_the_settings():
    text = difference(EGRESS)
    assert QUIET in text
    assert [row[:2] for row in rows(text)] == [
        ["created", "gitlab-server-to-extra-networks-123-udp-192.0.2.123/32"],
        ["created", "gitlab-server-to-extra-networks-636-10.20.0.0/24"],
    ]
    assert "| **opens** | server → extra-networks (10.20.0.0/24) | 636 | directory |" in text
    assert "| **opens** | server → extra-networks (192.0.2.123/32) | 123 (udp) | time |" in text


def test_a_flow():
    text = difference(FLOW)
    assert QUIET in text
    assert [row[:2] for row in rows(text)] == [["created", "gitlab-runner-to-internet-8443-0.0.0.0/0"]]
    assert "| **opens** | runner → internet | 8443 | artifacts of jobs |" in text
    assert {name for _, name, *_ in rows(text, steps=True)} >= ACCEPTANCE
    assert "### Cost: unchanged, $428.10 a month" in text


@pytest.mark.long
def test_an_instance_type():
    text = difference(TYPE)
    assert f"{QUIET} Stopped and started to change the instance type: **runner**." in text
    assert rows(text) == [["updated", "runner", "`instanceType`: `t3.large` → `t3.xlarge`"]]
    assert "### Cost a month: $428.10 → $519.21" in text


@pytest.mark.long
def test_a_version():
    text = difference(VERSION)
    assert QUIET in text
    assert rows(text) == []
    changed = {name: change[0] for _, name, *change in rows(text, steps=True) if "gitlab" in name}
    for step in ("install_gitlab", "configure_gitlab"):
        shown = changed[f"server-{step.replace('_', '-')}"]
        assert re.search(r" 17\.10\.4\b.*` → `.* 17\.11\.7\b", shown), shown


def test_only_a_docstring():
    assert difference(DOCSTRING) == "No difference: a stack `dev` of `HEAD` does not change.\n"


@pytest.mark.long
def test_the_image():
    text = difference(IMAGE)
    assert "None is created, updated, replaced or deleted." in text
    _, later = text.split("### Changed without effect on existing resources")
    for machine in ("server", "registry", "runner"):
        assert f"| `{machine}` | `ami`: `ami-08100000000000003` → `ami-0a1b2c3d4e5f60718` |" in later


@pytest.mark.long
def test_the_size_of_a_data_volume():
    text = difference(VOLUME)
    assert QUIET in text
    assert rows(text) == [["updated", "registry-data", "`size`: `100` → `250`"]]
    assert "registry-grow-data" in [name for _, name, *_ in rows(text, steps=True)]
    assert "### Cost a month: $428.10 → $442.38" in text


@pytest.mark.long
def test_another_key_pair_of_the_administrators_replaces_no_machine():
    text = difference(KEY_PAIR)
    assert "The machine" not in text
    assert ["replaced", "gitlab"] in [row[:2] for row in rows(text)]
    assert not {"server", "registry", "runner"} & {name for _, name, _ in rows(text)}


@pytest.mark.long
def test_a33_where_it_is_not_ignored_another_key_pair_replaces_every_machine():
    text = difference(KEY_PAIR, KEY_PAIR_NOT_IGNORED)
    for machine in ("registry", "runner", "server"):
        assert f"> - The machine **{machine}** is **REPLACED**." in text


def test_a_zone_takes_the_data_with_it_and_says_so_first():
    text = difference(ZONE)
    assert text.splitlines()[2] == "> [!CAUTION]"
    for volume in ("registry-data", "server-data"):
        assert f"> - The data volume **{volume}** is **REPLACED**; it is protected, so `pulumi up` fails." in text
    for machine in ("registry", "runner", "server"):
        assert f"> - The machine **{machine}** is **REPLACED**." in text


@pytest.mark.long
def test_the_same_change_is_told_in_the_same_bytes():
    assert difference(TYPE, FLOW, VOLUME) == difference(TYPE, FLOW, VOLUME)


def test_a_preview_on_its_own_state_finds_nothing_to_change(tmp_path):
    state = tmp_path / "state.json"
    commands.save_state("dev", state)
    done = lab("preview", "dev", "--state", str(state))
    assert done.status == 0, done.output
    assert re.search(r"\b\d{2,3} unchanged", done.output)
    assert not [word for word in ("to create", "to update", "to replace", "to delete") if word in done.output]


def test_a_preview_from_nothing_names_the_cost_and_needs_no_key():
    done = lab("preview", "dev")
    assert done.status == 0, done.output
    assert "using a placeholder for" not in done.output
    assert re.search(r"\b\d{2,3} to create", done.output)
    assert "| **total** | **$428.10** |" in done.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Pulumi.dev.yaml": [("  gitlab:tags:", "  gitlab:tags: [\n  x:")]}, "Pulumi.dev.yaml cannot be read"),
        ({"Pulumi.dev.yaml": [("eu-central-1a", "us-east-1a")]}, "'us-east-1a' is not in aws:region"),
        (MISSPELT, "the program of this change does not run:(.|\n)*name 'Newtork' is not defined"),
        pytest.param(
            {
                "components/network.py": [
                    ('-balancer",\n            domain="vpc"', '-balancer",\n            domain="moon"')
                ]
            },
            "expected domain to be one of",
            marks=pytest.mark.long,
        ),
    ],
    ids=["stack file", "setting", "program", "refused by the provider"],
)
def test_what_does_not_run_is_an_error_that_says_why(change, message):
    with pytest.raises(LabError, match=message):
        difference(change)


def test_a_base_that_does_not_run_or_is_not_there_is_an_error(monkeypatch):
    with pytest.raises(LabError, match=r"'origin/no-such-branch' is not a commit.*git fetch origin no-such-branch"):
        commands.preview_diff("dev", "origin/no-such-branch")
    monkeypatch.setattr(commands, "checked_out", lambda commit: changed_program(MISSPELT))
    with pytest.raises(LabError, match="the program of `main` does not run"):
        commands.preview_diff("dev", "main")


@pytest.mark.long
def test_an_api_that_goes_away_is_an_error_that_says_so(monkeypatch):
    def bring_up(throwaway, program, answers):
        engine.daemon().stop()
        raise LabError("connection refused")

    monkeypatch.setattr(engine.Throwaway, "bring_up", bring_up)
    with pytest.raises(LabError, match=r"the lab's API at .* is no longer reachable"):
        commands.preview_diff("dev", "HEAD")
