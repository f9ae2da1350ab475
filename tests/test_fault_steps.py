"""The end-to-end tests cut the connection in every remote step."""

from configuration.flows import Place
from tests.e2e.test_faults import STEPS
from tests.test_program import COMMAND

BEFORE_RUN_STEP = {f"{place}-{step}" for place in Place for step in ("host-key", "prepare-host")}


def test_the_connection_is_cut_in_every_step_that_the_program_runs(own_graph):
    assert {command.name for command in own_graph.of_type(COMMAND)} - BEFORE_RUN_STEP == set(STEPS)
