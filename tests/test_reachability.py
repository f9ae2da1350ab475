"""The reachability matrix matches the flows, and shows a rule that permits more than its own flow."""

import dataclasses
from itertools import permutations

import pytest

from configuration import flows, reachability
from configuration.flows import GROUPS, MACHINES, Flow, Place
from configuration.reachability import reached
from tests.test_settings import load
from tools.docs_tables import EXAMPLE

PAIRS = [pair for pair in permutations(Place, 2) if set(pair) & set(GROUPS)]


def test_every_flow_is_reached_and_nothing_else():
    """Clients and administrators are no targets here: egress to the internet reaches them as well."""
    targets = (*GROUPS, Place.INTERNET)
    between = [(source, target) for source, target in PAIRS if target in targets]
    found = {(*pair, port) for pair in between for port in reached(EXAMPLE, *pair)}
    assert found == {(flow.source, flow.target, flow.port) for flow in flows.flows(EXAMPLE)}


def test_no_machine_has_a_way_to_anothers_ssh_and_only_the_balancer_hears_the_clients():
    for source, target in permutations(MACHINES, 2):
        assert 22 not in reached(EXAMPLE, source, target)
    assert [place for place in GROUPS if reached(EXAMPLE, Place.CLIENTS, place)] == [Place.LOAD_BALANCER]
    assert not [place for place in GROUPS if reached(EXAMPLE, Place.INTERNET, place)]


def test_who_lets_in_the_world_lets_in_every_place_of_it():
    world = dataclasses.replace(EXAMPLE, client_cidrs=("0.0.0.0/0",))
    assert reached(world, Place.INTERNET, Place.LOAD_BALANCER) == (22, 443, 5000)
    assert reached(world, Place.REGISTRY, Place.LOAD_BALANCER) == (443,), "its egress to the internet is limited to 443"
    assert "443: through a rule for another place" in reachability.table(world)


def test_administrators_among_the_clients_networks_are_clients():
    among = dataclasses.replace(EXAMPLE, client_cidrs=("203.0.113.0/24",), admin_cidrs=("203.0.113.7/32",))
    assert 443 in reached(among, Place.ADMINISTRATORS, Place.LOAD_BALANCER)
    assert 22 not in reached(among, Place.CLIENTS, Place.SERVER)


@pytest.mark.parametrize(
    ("flow", "opens"),
    [
        (Flow(Place.RUNNER, Place.SERVER, 22, "for a wrong program"), {(Place.RUNNER, Place.SERVER)}),
        (Flow(Place.INTERNET, Place.REGISTRY, 5000, "the same"), {(place, Place.REGISTRY) for place in Place}),
    ],
    ids=["between machines", "from the world"],
)
def test_a_flow_too_many_is_seen(monkeypatch, flow, opens):
    before = {pair: reached(EXAMPLE, *pair) for pair in PAIRS}
    table, usual = reachability.table(EXAMPLE), flows.flows
    monkeypatch.setattr(reachability, "flows", lambda settings: (*usual(settings), flow))
    changed = {pair for pair in PAIRS if reached(EXAMPLE, *pair) != before[pair]}
    assert changed
    assert changed <= opens
    assert reachability.table(EXAMPLE) != table


def test_settings_of_a_stack_say_who_reaches_what():
    assert reached(load(), Place.RUNNER, Place.LOAD_BALANCER) == (22, 80, 5000)


def test_a_job_goes_out_as_its_machine_and_reaches_nothing_of_it():
    rows = {row.split(" | ")[0]: row.rstrip(" |").split(" | ")[1:] for row in reachability.table(EXAMPLE).splitlines()}
    machine, job = rows["| **the runner's machine**"], rows["| **a job's container**"]
    own = list(GROUPS).index(Place.RUNNER)
    assert job[:own] == machine[:own]
    assert (job[own], job[-1]) == ("nothing", "nothing")
    assert job[own + 1 : -1] == machine[own + 1 : -1]
