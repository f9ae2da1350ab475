"""In-place upgrade of GitLab: rejected while background migrations of the last upgrade run, and done after that."""

import pytest

from lab import stack
from tests.e2e import kept
from tests.e2e.operations import must, on, up
from tests.e2e.programs import IMPATIENT, changed_program

pytestmark = pytest.mark.long

OLD, NEW = "17.10.4", "17.11.7"
INSTALLED = "rpm -q gitlab-ce"
QUEUED = (
    "INSERT INTO batched_background_migrations (job_class_name, table_name, column_name, status)"
    " VALUES ('BackfillOfTheTest', 'issues', 'id', 1)"
)
FINISHED = "UPDATE batched_background_migrations SET status = 3"


def ask_database(statement: str) -> None:
    must("server", f'gitlab-psql -tAc "{statement}"')


@pytest.mark.usefixtures("outputs")
def test_an_upgrade_waits_for_background_migrations_and_then_keeps_everything():
    before = kept.holdings()
    assert OLD in must("server", INSTALLED)
    ask_database(QUEUED)
    stack.configure("gitlabVersion", NEW)
    refused = up()
    assert refused.status != 0
    assert f"Background migrations of GitLab {OLD} are not finished" in refused.output
    assert "Unfinished: BackfillOfTheTest" in refused.output
    assert OLD in must("server", INSTALLED)
    assert on("server", "curl -fs --haproxy-protocol http://127.0.0.1/users/sign_in").status == 0

    careless = {
        "remote/install_gitlab.sh": [('        check_background_migrations "$configured"\n', "")],
        # Do not wait ten minutes for a GitLab that never becomes ready.
        "remote/configure_gitlab.sh": [("for _ in {1..60}; do", "for _ in 1 2; do")],
    }
    with changed_program(IMPATIENT, careless) as program:
        wrong = up(program=program)
    assert wrong.status != 0
    assert "marked as 'finished', but it is 'active'" in must(
        "server", "cat /var/log/gitlab-stack/install_gitlab.log /var/log/gitlab-stack/configure_gitlab.log"
    )
    assert on("server", "curl -fs --haproxy-protocol http://127.0.0.1/users/sign_in").status != 0

    ask_database(FINISHED)
    done = up()
    assert done.status == 0, done.output
    assert NEW in must("server", INSTALLED)
    assert must("server", "cat /etc/gitlab/configured-version") == NEW
    assert kept.holdings() == before
