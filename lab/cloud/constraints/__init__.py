"""AWS's documented constraint for every value that is sent: one table, and an API that rejects values violating it.

The table has an entry for each parameter of each call that the program's resources were recorded to send
(`recorded_parameters.json`, written by `python -m tests.e2e.permissions`) and that its machines send
(`SENT_BY_MACHINES`), and no others; some entries state that AWS documents no constraint. moto validates few values, and
never sees what is rejected here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.cloud import calls
from lab.cloud.calls import Call
from lab.cloud.constraints import acm, ec2, elastic_load_balancing, iam, route53
from lab.cloud.constraints.kinds import Constraint, Refusal
from lab.cloud.faults import Application, StartResponse, refuse, refuse_ec2, refuse_json

TABLE: Mapping[str, Mapping[str, Constraint]] = {
    f"{service}:{action}": constraints
    for service, table in (
        ("acm", acm.TABLE),
        ("ec2", ec2.TABLE),
        ("elasticloadbalancing", elastic_load_balancing.TABLE),
        ("iam", iam.TABLE),
        ("route53", route53.TABLE),
    )
    for action, constraints in table.items()
}
"""By action, named as in policies, and parameter, named as in calls.py."""

SENT_BY_MACHINES: Mapping[str, Sequence[str]] = {
    "ec2:CreateSnapshot": [
        *("Description", "VolumeId", "TagSpecification.N.ResourceType"),
        *("TagSpecification.N.Tag.N.Key", "TagSpecification.N.Tag.N.Value"),
    ],
    "ec2:DeleteSnapshot": ["SnapshotId"],
    "ec2:DescribeSnapshots": ["Filter.N.Name", "Filter.N.Value.N", "NextToken", "Owner.N"],
    "ec2:LockSnapshot": ["LockDuration", "LockMode", "SnapshotId"],
}
"""What the program for backups sends, with the credentials of its machine's role."""


def refusal(call: Call) -> Refusal | None:
    """Return AWS's error for the first invalid value of a call, or None if all are valid."""
    known = TABLE.get(call.permission, {})
    for parameter in call.parameters:
        constraint = known.get(parameter.name)
        if constraint and (found := constraint.refusal(call, parameter)):
            return found
    return None


def constrained(aws: Application) -> Application:
    """Return `aws`, which never receives a value that violates its constraint, from any caller."""

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        call = calls.read(environ)
        found = refusal(call) if call else None
        if call is None or found is None:
            return aws(environ, start_response)
        if call.service == "ec2":
            return refuse_ec2(start_response, "400 Bad Request", found.code, found.message)
        if call.service == "acm":
            return refuse_json(start_response, "400 Bad Request", found.code, found.message)
        return refuse(start_response, "400 Bad Request", "Sender", found.code, found.message)

    return serve
