"""Reachability on the running stack, with real packets: each place tries every port of all others.

The matrix in SECURITY.md lists what it may reach (configuration/reachability.py).
"""

import re
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from configuration import reachability
from configuration.flows import GROUPS, MACHINES, Place
from lab.cloud.network import NAMESPACE_PREFIX, OPERATOR, VENDORS
from tests.e2e import projects
from tests.e2e.operations import client, eventually, must
from tests.e2e.test_jobs import IMAGE

SETTINGS = reachability.Example(web_port=443, client_cidrs=(f"{OPERATOR}/32",), admin_cidrs=(f"{OPERATOR}/32",))
"""The settings in Pulumi.lab.yaml: on the lab, client and administrator have the same address."""

TRIED = tuple(sorted({*reachability.ports(SETTINGS), 22, 80, 443, 2222, 5000, 9100}))
INTERNET_PORT = 443
"""The port of the lab's internet, which is the vendors' servers."""

TRY = """
for endpoint in {endpoints}; do (
  connected=$(curl {options} --silent --noproxy '*' --output /dev/null --connect-timeout 2 --max-time 3 \\
    --write-out '%{{time_connect}}' "http://$endpoint/" || true)
  case $connected in 0.000000) ;; *) echo "reached $endpoint" ;; esac
) & done
wait
"""
"""Shell commands that print each endpoint that accepts a connection."""

ASK_METADATA = """
curl --silent --noproxy '*' --output /dev/null --max-time 3 --write-out 'metadata %{http_code}\\n' \\
  --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token || true
"""
"""Shell commands that request a session token from the metadata service and print the status."""


@pytest.fixture(scope="module")
def addresses(outputs) -> Mapping[Place, tuple[str, ...]]:
    """The addresses of each place."""
    found = {place: (outputs["publicAddresses"][place], outputs["privateAddresses"][place]) for place in MACHINES}
    [private] = re.findall(r"inet ([\d.]+)", in_the_balancers_namespace("ip -4 -oneline address show dev eth0"))
    found[Place.LOAD_BALANCER] = (outputs["publicAddresses"][Place.LOAD_BALANCER], private)
    return found


def in_the_balancers_namespace(command: str) -> str:
    [balancer] = client("elbv2").describe_load_balancers()["LoadBalancers"]
    return here(command, "ip", "netns", "exec", NAMESPACE_PREFIX + balancer["LoadBalancerName"])


def here(command: str, *prefix: str) -> str:
    done = subprocess.run([*prefix, "sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def program(addresses: Mapping[Place, tuple[str, ...]], options: str = "") -> str:
    endpoints = [f"{address}:{port}" for found in addresses.values() for address in found for port in TRIED]
    return TRY.format(endpoints=" ".join([*endpoints, f"{VENDORS}:{INTERNET_PORT}"]), options=options)


def reached(said: str, addresses: Mapping[Place, tuple[str, ...]]) -> dict[Place, set[int]]:
    """The reached ports in the output of `program`, by place."""
    endpoints = re.findall(r"^reached ([\d.]+):(\d+)\s*$", said, re.MULTILINE)
    places = {address: place for place, found in addresses.items() for address in found} | {VENDORS: Place.INTERNET}
    found: dict[Place, set[int]] = {place: set() for place in (*GROUPS, Place.INTERNET)}
    for address, port in endpoints:
        found[places[address]].add(int(port))
    return found


def expected(source: Place) -> dict[Place, set[int]]:
    found = {place: set(reachability.reached(SETTINGS, source, place)) for place in GROUPS}
    return found | {Place.INTERNET: set(reachability.reached(SETTINGS, source, Place.INTERNET)) & {INTERNET_PORT}}


def compare(said: str, source: Place, addresses: Mapping[Place, tuple[str, ...]], *, without: set[Place]) -> None:
    found, wanted = reached(said, addresses), expected(source)
    assert {place: found[place] for place in found if place not in without} == {
        place: wanted[place] for place in wanted if place not in without
    }


@pytest.mark.parametrize(("address", "source"), [(OPERATOR, Place.CLIENTS), (VENDORS, Place.INTERNET)])
def test_from_outside_is_reached_what_the_matrix_says_and_nothing_else(addresses, address, source):
    said = here(program(addresses, f"--interface {address}"))
    compare(said, source, addresses, without={Place.INTERNET})


@pytest.mark.parametrize("machine", MACHINES)
def test_from_a_machine_is_reached_what_the_matrix_says_and_nothing_else(addresses, machine):
    said = must(machine, program(addresses) + ASK_METADATA)
    compare(said, machine, addresses, without={machine})
    assert said.endswith("metadata 200")


@pytest.mark.parametrize("machine", reachability.WITH_ROLE)
def test_on_a_machine_with_a_role_only_root_reaches_the_metadata_service(machine):
    assert must(machine, f"runuser -u ec2-user -- sh -c {shlex.quote(ASK_METADATA)}") == "metadata 000"


def test_from_the_balancer_is_reached_what_the_matrix_says_and_nothing_else(addresses):
    said = in_the_balancers_namespace(program(addresses))
    compare(said, Place.LOAD_BALANCER, addresses, without={Place.LOAD_BALANCER})


def test_from_a_jobs_container_is_reached_what_the_matrix_says_and_nothing_else(outputs, addresses):
    said = job_says(outputs, program(addresses) + ASK_METADATA)
    compare(said, Place.RUNNER, addresses, without={Place.RUNNER})
    assert reached(said, addresses)[Place.RUNNER] == set(), "a job must not reach its machine"
    assert re.search(r"^metadata 000\s*$", said, re.MULTILINE)


def job_says(outputs: dict[str, Any], script: str) -> str:
    """Run a script as a job, which must succeed. Returns its log."""
    tries = {"image": {"name": IMAGE, "entrypoint": [""]}, "script": [script]}
    text = yaml.safe_dump({"workflow": {"rules": [{"if": '$CI_PIPELINE_SOURCE == "api"'}]}, "tries": tries})
    with projects.made(outputs, "reachability") as project:
        actions = [{"action": "create", "file_path": ".gitlab-ci.yml", "content": text}]
        project.commits.create({"branch": "main", "commit_message": "Try every port", "actions": actions})
        [started] = project.pipelines.create({"ref": "main"}).jobs.list(all=True)
        eventually(lambda: project.jobs.get(started.id).finished_at)
        ended = project.jobs.get(started.id)
        log = ended.trace().decode()
    assert ended.status == "success", log
    return str(log)
