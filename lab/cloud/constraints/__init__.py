"""Every value sent to AWS has its documented constraint: one table, and an API that refuses what breaks it.

The table has an entry for each parameter of each call that the program's resources were recorded to send
(`recorded_parameters.json`, written by `python -m tests.e2e.permissions`), and no other; one for which AWS documents
nothing says so. moto looks at few values, and never sees what is refused here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lab.cloud import calls
from lab.cloud.calls import Call
from lab.cloud.constraints import ec2, elastic_load_balancing, route53
from lab.cloud.constraints.kinds import Constraint, Refusal
from lab.cloud.faults import Application, StartResponse, refuse, refuse_ec2

TABLE: Mapping[str, Mapping[str, Constraint]] = {
    f"{service}:{action}": constraints
    for service, table in (
        ("ec2", ec2.TABLE),
        ("elasticloadbalancing", elastic_load_balancing.TABLE),
        ("route53", route53.TABLE),
    )
    for action, constraints in table.items()
}
"""By action, as a policy names it, and parameter, as calls.py does."""


def refusal(call: Call) -> Refusal | None:
    """Why AWS does not take the first value of a call that it does not take."""
    known = TABLE.get(call.permission, {})
    for parameter in call.parameters:
        constraint = known.get(parameter.name)
        if constraint and (found := constraint.refusal(call, parameter)):
            return found
    return None


def constrained(aws: Application) -> Application:
    """`aws`, which sees no value that breaks its constraint, whoever sends it."""

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        call = calls.read(environ)
        found = refusal(call) if call else None
        if call is None or found is None:
            return aws(environ, start_response)
        if call.service == "ec2":
            return refuse_ec2(start_response, "400 Bad Request", found.code, found.message)
        return refuse(start_response, "400 Bad Request", "Sender", found.code, found.message)

    return serve
