"""A stack created with an earlier version keeps its resources with this one."""

import json

import pytest

from tests.engine import Graph
from tests.recorded_resources import FILE, described

RECORD = json.loads(FILE.read_text())


def known_as(graph: Graph) -> dict[str, str]:
    """This version's URN of each resource, by that URN and by the URN of each alias."""
    known = {}
    for resource in graph.resources:
        known[resource.urn] = resource.urn
        for alias in resource.request.aliases:
            if alias.spec.name:
                known[resource.urn.removesuffix(resource.name) + alias.spec.name] = resource.urn
            if alias.spec.parentUrn:
                parent = alias.spec.parentUrn.split("::")[2].rpartition("$")[2]
                now = resource.urn.split("::")[2]
                known[resource.urn.replace(f"::{now}::", f"::{parent}${resource.type}::")] = resource.urn
    return known


GRAPHS = {"dev": "graph", "tls": "tls_graph", "requested": "requested_graph"}


@pytest.mark.parametrize("stack", GRAPHS)
def test_no_resource_of_aws_is_created_replaced_or_deleted_and_no_step_is_lost(stack, request):
    graph = request.getfixturevalue(GRAPHS[stack])
    known, now, then = known_as(graph), described(graph), RECORD[stack]
    assert then.keys() <= known.keys(), "existing resources would be deleted; if this is intended, record it"
    for urn, inputs in then.items():
        assert now[known[urn]] == inputs, f"{urn} would change; if this is intended, record it"
    new = set(now) - {known[urn] for urn in then}
    assert not [urn for urn in new if "aws:" in urn], "resources would be created; if this is intended, record it"
