"""The network with real packets: who reaches whom, and as whom he is seen there."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from lab.cloud.network import Interface, Rule
from lab.workspace import ROOT

NAMESPACES = ["unshare", "--net", "--mount"]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or not all(map(shutil.which, ("nft", "ip", "unshare")))
    or subprocess.run([*NAMESPACES, "true"], stderr=subprocess.DEVNULL).returncode != 0,
    reason="only root makes networks",
)


def interface(number, group, subnet="10.42.0", public=None):
    return Interface(
        f"eni-0000000000000000{number}",
        f"{subnet}.{number}",
        f"{subnet}.0/24",
        "10.42.0.0/16",
        f"02:00:00:00:00:0{number}",
        (group,) if group else None,
        public,
        public is not None,
    )


FRONT = interface(7, "sg-front", public="198.51.100.16")
SERVER = interface(4, "sg-server", public="198.51.100.17")
RUNNER = interface(5, "sg-runner", public="198.51.100.18")
AWAY = interface(6, "sg-runner", subnet="10.42.1", public="198.51.100.19")
HIDDEN = interface(8, "sg-runner")
assert FRONT.elastic and SERVER.elastic and RUNNER.elastic


def rule(group, direction, peer):
    return Rule(f"sgr-{group}-{direction}-{peer}".replace("/", "-"), group, direction == "out", "tcp", peer, 80, 80)


def reach(*probes, rules):
    """What each probe (from an interface to an address) is answered."""
    interfaces = [dataclasses.asdict(i) for i in (FRONT, SERVER, RUNNER, AWAY, HIDDEN)]
    scenario = {
        "interfaces": interfaces,
        "rules": [dataclasses.asdict(rule) for rule in rules],
        "probes": [(source.id, address) for source, address in probes],
    }
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "lab.tests.packets"],
        cwd=ROOT,
        input=json.dumps(scenario),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


RUNNER_OUT = rule("sg-runner", "out", "0.0.0.0/0")


def test_a_machine_is_seen_by_its_public_address_at_a_public_one():
    to_front = (RUNNER, FRONT.elastic)
    assert reach(to_front, rules=[RUNNER_OUT, rule("sg-front", "in", f"{RUNNER.elastic}/32")]) == [RUNNER.elastic]


def test_a_reference_to_a_group_does_not_match_a_public_address():
    """Neither as source of what comes through the gateway, nor as destination of what goes there."""
    to_front, open_front = (RUNNER, FRONT.elastic), rule("sg-front", "in", "0.0.0.0/0")
    assert reach(to_front, rules=[RUNNER_OUT, rule("sg-front", "in", "sg-runner")]) == [None]
    assert reach(to_front, rules=[RUNNER_OUT, rule("sg-front", "in", f"{RUNNER.address}/32")]) == [None]
    assert reach(to_front, rules=[rule("sg-runner", "out", "sg-front"), open_front]) == [None]
    assert reach(to_front, rules=[rule("sg-runner", "out", f"{FRONT.address}/32"), open_front]) == [None]
    assert reach(to_front, rules=[rule("sg-runner", "out", f"{FRONT.elastic}/32"), open_front]) == [RUNNER.elastic]


def test_a_reference_to_a_group_matches_private_addresses():
    rules = [rule("sg-runner", "out", "sg-server"), rule("sg-server", "in", "sg-runner")]
    private = [(RUNNER, SERVER.address), (AWAY, SERVER.address), (FRONT, SERVER.address)]
    assert reach(*private, rules=rules) == [RUNNER.address, AWAY.address, None]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_connection_needs_a_rule_at_either_end(missing):
    rules = [rule("sg-front", "out", "sg-server"), rule("sg-server", "in", "sg-front")]
    to_server = (FRONT, SERVER.address)
    assert reach(to_server, rules=rules) == [FRONT.address]
    del rules[missing]
    assert reach(to_server, rules=rules) == [None]


def test_an_answer_needs_no_rule_and_the_other_direction_does():
    rules = [rule("sg-front", "out", "sg-server"), rule("sg-server", "in", "sg-front")]
    assert reach((FRONT, SERVER.address), (SERVER, FRONT.address), rules=rules) == [FRONT.address, None]


def test_a_machine_without_a_public_address_has_no_way_out():
    rules = [RUNNER_OUT, rule("sg-front", "in", "0.0.0.0/0")]
    assert reach((HIDDEN, FRONT.elastic), (HIDDEN, FRONT.address), rules=rules) == [None, HIDDEN.address]
