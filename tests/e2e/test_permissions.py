"""The provider makes no calls that were not recorded, with the API only and on the lab."""

import json

import pytest

from lab import stack
from lab.cloud import actions
from tests.e2e import permissions

RECORDED = json.loads(permissions.RECORDED.read_text())
PARAMETERS = json.loads(permissions.PARAMETERS.read_text())
RECORD_AGAIN = "run python -m tests.e2e.permissions, and add new actions to the policies in docs/iam"
ADD_CONSTRAINTS = "run python -m tests.e2e.permissions, and add AWS's constraints to lab/cloud/constraints"


def unknown(sent):
    """The parameters that were not recorded, by action."""
    new = {action: sorted(set(names) - set(PARAMETERS.get(action, []))) for action, names in sent.items()}
    return {action: names for action, names in new.items() if names}


@pytest.mark.long
def test_every_operation_calls_and_sends_what_was_recorded_and_nothing_else():
    found = permissions.record()
    new = {name: sorted(set(seen) - set(RECORDED[name])) for name, seen in found.actions.items()}
    assert not any(new.values()), f"{new}: {RECORD_AGAIN}"
    assert unknown(found.parameters) == {}, ADD_CONSTRAINTS


@pytest.mark.usefixtures("outputs")
def test_up_on_the_lab_and_a_preview_and_refresh_after_it_call_what_was_recorded():
    made = actions.called()
    assert made, "no calls were logged"
    assert unknown(made) == {}, ADD_CONSTRAINTS
    assert set(made) <= {action for name in ("up", "change", "refresh") for action in RECORDED[name]}, RECORD_AGAIN
    actions.forget()
    stack.preview(refresh=True)
    assert set(actions.called()) <= {*RECORDED["preview"], *RECORDED["refresh"]}, RECORD_AGAIN
    actions.forget()
    stack.refresh()
    assert set(actions.called()) <= set(RECORDED["refresh"]), RECORD_AGAIN
