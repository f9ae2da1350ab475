"""The provider calls and sends nothing that was not recorded: in the API alone, and on the lab."""

import json

import pytest

from lab import stack
from lab.cloud import actions
from tests.e2e import permissions

RECORDED = json.loads(permissions.RECORDED.read_text())
PARAMETERS = json.loads(permissions.PARAMETERS.read_text())
WRITE_ANEW = "run python -m tests.e2e.permissions, and put what is new into the policies of docs/iam"
LOOK_UP = "run python -m tests.e2e.permissions, and put what AWS documents of it into lab/cloud/constraints"


def unknown(sent):
    """The parameters, by action, that were not recorded."""
    new = {action: sorted(set(names) - set(PARAMETERS.get(action, []))) for action, names in sent.items()}
    return {action: names for action, names in new.items() if names}


@pytest.mark.long
def test_every_operation_calls_and_sends_what_was_recorded_and_nothing_else():
    found = permissions.record()
    new = {name: sorted(set(seen) - set(RECORDED[name])) for name, seen in found.actions.items()}
    assert not any(new.values()), f"{new}: {WRITE_ANEW}"
    assert unknown(found.parameters) == {}, LOOK_UP


@pytest.mark.usefixtures("outputs")
def test_up_on_the_lab_and_a_preview_and_refresh_after_it_call_what_was_recorded():
    made = actions.called()
    assert made, "nothing was noted"
    assert unknown(made) == {}, LOOK_UP
    assert set(made) <= {action for name in ("up", "change", "refresh") for action in RECORDED[name]}, WRITE_ANEW
    actions.forget()
    stack.preview(refresh=True)
    assert set(actions.called()) <= {*RECORDED["preview"], *RECORDED["refresh"]}, WRITE_ANEW
    actions.forget()
    stack.refresh()
    assert set(actions.called()) <= set(RECORDED["refresh"]), WRITE_ANEW
