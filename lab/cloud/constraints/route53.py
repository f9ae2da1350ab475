"""Route 53. Its model has limits, allowed values and patterns; its Developer Guide the formats of names and values."""

import ipaddress
from collections.abc import Mapping

from lab.cloud.calls import Call, Parameter
from lab.cloud.constraints.kinds import MODEL, Constraint, Refusal, between, beyond_model, matches, refused_by_model

RECORD = "ChangeBatch.Changes.Change.ResourceRecordSet"
ZONE = beyond_model(
    "The ID of the hosted zone",
    matches(r"Z[A-Z0-9]{1,31}"),
    code="NoSuchHostedZone",
    message="No hosted zone found with ID: {value}",
)
DOMAIN_NAME = matches(r"(?=.{1,255}\Z)(?i:(\*|[a-z0-9_\\-]{1,63})(\.[a-z0-9_\\-]{1,63})*\.?)")
NAME = beyond_model(
    "a-z, 0-9 and - (hyphen), labels of up to 63 characters, 255 in all; an asterisk or \\ooo for other characters",
    DOMAIN_NAME,
    source="Amazon Route 53 Developer Guide, DNS domain name format",
    code="InvalidChangeBatch",
    message="FATAL problem: UnsupportedCharacter (Value contains unsupported characters) encountered with '{value}'",
)


def _value(call: Call, parameter: Parameter) -> Refusal | None:
    if call.value(f"{RECORD}.Type") == "A":
        try:
            ipaddress.IPv4Address(parameter.value)
        except ValueError:
            problem = "ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address)"  # gomodules/dns issue 7
            return _invalid(parameter, problem)
    if call.value(f"{RECORD}.Type") == "CNAME" and not DOMAIN_NAME(parameter.value):
        return _invalid(parameter, "UnsupportedCharacter (Value contains unsupported characters)")
    return refused_by_model(call, parameter)


def _invalid(parameter: Parameter, problem: str) -> Refusal:
    message = f"Invalid Resource Record: FATAL problem: {problem} encountered with '{parameter.value}'"
    return Refusal("InvalidChangeBatch", message)


TABLE: Mapping[str, Mapping[str, Constraint]] = {
    "ChangeResourceRecordSets": {
        "Id": ZONE,
        "ChangeBatch.Comment": MODEL,
        "ChangeBatch.Changes.Change.Action": MODEL,
        f"{RECORD}.Name": NAME,
        f"{RECORD}.ResourceRecords.ResourceRecord.Value": Constraint(
            "The value for an A record is an IPv4 address in dotted decimal notation. A CNAME Value element is the "
            "same format as a domain name.",
            "Amazon Route 53 Developer Guide, Supported DNS record types",
            _value,
        ),
        f"{RECORD}.TTL": MODEL,
        f"{RECORD}.Type": MODEL,
    },
    "GetChange": {"Id": MODEL},
    "GetHostedZone": {"Id": ZONE},
    "ListHostedZones": {},
    "ListResourceRecordSets": {
        "Id": ZONE,
        "maxitems": beyond_model("The maximum number of resource records sets", between(1, 300)),
        "name": NAME,
        "type": MODEL,
    },
    "ListTagsForResource": {"ResourceId": MODEL, "ResourceType": MODEL},
}
"""By action and parameter."""
