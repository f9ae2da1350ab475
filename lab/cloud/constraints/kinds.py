"""The kinds of constraints that AWS documents, and AWS's errors for values that violate them."""

import base64
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from lab.cloud.calls import Call, Parameter
from lab.cloud.constraints import model

PROSE = "the parameter's own documentation in botocore's service model"
"""The source of quotations from it, which a test verifies."""


@dataclass(frozen=True)
class Refusal:
    """AWS's error code and message."""

    code: str
    message: str


Judge = Callable[[Call, Parameter], Refusal | None]


@dataclass(frozen=True)
class Constraint:
    """What AWS documents for a value: `says` quotes it, `source` is where. `refusal` returns None for a valid value."""

    says: str
    source: str
    refusal: Judge


def no_constraint(looked_in: str) -> Constraint:
    """Return an entry for a value without a constraint; `looked_in` is the documentation that would contain one."""
    return Constraint("", looked_in, lambda _call, _parameter: None)


# --- botocore's models -----------------------------------------------------------------------------------

BLANKS = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's class Z, which Python's regular expressions do not support."""


def refused_by_model(call: Call, parameter: Parameter) -> Refusal | None:
    """Return the error for a value that the model does not allow."""
    shape = model.shape(call.service, call.action, parameter.name)
    complaint = _complaint(shape.type_name, shape.metadata, parameter.value)
    if complaint is None:
        return None
    if call.service == "ec2":
        return Refusal("InvalidParameterValue", f"{_invalid(parameter)} {complaint}")
    return failed(call, parameter, complaint)


def _complaint(kind: str, limits: dict[str, object], value: str) -> str | None:
    """Return why a value does not have this type or is not within these limits of botocore's model."""
    if kind == "boolean":
        return None if value in ("true", "false") else "Member must be true or false"
    if kind in ("integer", "long"):
        if not re.fullmatch(r"-?\d+", value):
            return "Member must be an integer"
        measured, what = int(value), "value"
    elif kind == "blob":
        # It is sent in base64; the limits are of the bytes.
        measured, what = len(base64.b64decode(value)), "length"
    else:
        measured, what = len(value), "length"
    return _out_of_range(limits, measured, what) or _out_of_form(limits, value)


def _out_of_range(limits: dict[str, object], measured: int, what: str) -> str | None:
    lowest, highest = limits.get("min"), limits.get("max")
    if isinstance(lowest, int) and measured < lowest:
        return f"Member must have {what} greater than or equal to {lowest}"
    if isinstance(highest, int) and measured > highest:
        return f"Member must have {what} less than or equal to {highest}"
    return None


def _out_of_form(limits: dict[str, object], value: str) -> str | None:
    words, pattern = limits.get("enum"), limits.get("pattern")
    if isinstance(words, list) and value not in words:
        return f"Member must satisfy enum value set: [{', '.join(words)}]"
    # The whole value has to match: patterns of ACM are not anchored, and that of its tags occurs in any value.
    if isinstance(pattern, str) and not re.fullmatch(_for_python(pattern), value, re.DOTALL):
        return f"Member must satisfy regular expression pattern: {pattern}"
    return None


def _for_python(pattern: str) -> str:
    return pattern.replace(r"\p{L}", r"\w").replace(r"\p{N}", r"\d").replace(r"\p{Z}", BLANKS)


MODEL = Constraint("", "type, limits, allowed values and pattern in botocore's service model", refused_by_model)
"""The machine-readable part of the model contains the whole constraint."""


# --- EC2 -------------------------------------------------------------------------------------------------


def _invalid(parameter: Parameter) -> str:
    name = re.sub(r"(\.Value|\.\d+)+$", "", parameter.place).rpartition(".")[2]
    return f"Value ({parameter.value}) for parameter {name} is invalid."


def ec2(
    says: str,
    holds: Callable[[str], object],
    *,
    source: str = PROSE,
    code: str = "InvalidParameterValue",
    message: str | None = None,
) -> Constraint:
    """Return the constraint that `holds` is true for the value, which replaces {value} in the message. If AWS's own
    message is not known, the message has EC2's usual form followed by what AWS documents.
    """

    def refusal(_: Call, parameter: Parameter) -> Refusal | None:
        if holds(parameter.value):
            return None
        text = message.replace("{value}", parameter.value) if message else f"{_invalid(parameter)} {says}"
        return Refusal(code, text)

    return Constraint(says, source, refusal)


def matches(pattern: str) -> Callable[[str], object]:
    """Return a check that the whole value matches the pattern."""
    return re.compile(pattern, re.DOTALL).fullmatch


def between(lowest: int, highest: int) -> Callable[[str], bool]:
    """Return a check that the value is an integer within these limits, inclusive."""
    return lambda value: re.fullmatch(r"-?\d+", value) is not None and lowest <= int(value) <= highest


def network(shortest: int = 0, longest: int = 32) -> Callable[[str], bool]:
    """Return a check that the value is an IPv4 network with such a prefix length. AWS itself clears the host bits."""

    def holds(value: str) -> bool:
        try:
            prefix = ipaddress.IPv4Network(value, strict=False).prefixlen
        except ValueError:
            return False
        return "/" in value and shortest <= prefix <= longest

    return holds


def identifier(prefix: str, code: str, message: str = 'Invalid id: "{value}" (expecting "PREFIX-...")') -> Constraint:
    """Return the constraint of a resource id: its prefix and 17 hexadecimal digits, or the 8 of older ones. AWS has a
    separate error only for some kinds of malformed ids, and responds for the others that the resource does not exist.
    """
    return ec2(
        f"{prefix}- and 8 or 17 hexadecimal digits",
        matches(rf"{prefix}-([0-9a-f]{{8}}|[0-9a-f]{{17}})"),
        source="Amazon EC2 User Guide, Resource IDs; Error codes for the Amazon EC2 API",
        code=code,
        message=message.replace("PREFIX", prefix),
    )


# --- ACM, Elastic Load Balancing, IAM, Route 53 -------------------------------------------------------------


def failed(call: Call, parameter: Parameter, complaint: str) -> Refusal:
    """Return the error of services that validate with their models (aws-cloudformation/cfn-lint pull request 807)."""
    code = {"acm": "ValidationException", "route53": "InvalidInput"}.get(call.service, "ValidationError")
    place = f"at '{_in_camel_case(parameter.place)}' failed to satisfy constraint: {complaint}"
    secret = model.shape(call.service, call.action, parameter.name).metadata.get("sensitive")
    value = "Value" if secret else f"Value '{parameter.value}'"
    return Refusal(code, f"1 validation error detected: {value} {place}")


def _in_camel_case(place: str) -> str:
    """Return the name that these services use: for `Tags.member.1.Key` and `Tags.1.Key`, `tags.1.member.key`."""
    place = re.sub(r"\.(?:member\.)?(\d+)", r".\1.member", place)
    return ".".join(part if part.isupper() else part[:1].lower() + part[1:] for part in place.split("."))


def beyond_model(
    says: str,
    holds: Callable[[str], object],
    *,
    source: str = PROSE,
    code: str = "ValidationError",
    message: str | None = None,
) -> Constraint:
    """Like `ec2`, for the other services, which validate with their models first."""

    def refusal(call: Call, parameter: Parameter) -> Refusal | None:
        if found := refused_by_model(call, parameter):
            return found
        if holds(parameter.value):
            return None
        return Refusal(code, message.replace("{value}", parameter.value)) if message else failed(call, parameter, says)

    return Constraint(says, source, refusal)
