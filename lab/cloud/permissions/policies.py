"""What policies allow, as IAM judges it: pure, of documents and of what is asked.

Only what the policies of docs/iam use, and the rest refused loudly: a policy that is not understood must not pass for
one that holds. Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements".
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One action on one resource: its ARN, or `*` for an action that knows none. `keys` are the condition keys that
    AWS knows of it, with their values; of a key that is not there, or has none, it knows nothing.
    """

    action: str
    resource: str
    keys: Mapping[str, Sequence[str]]

    def value(self, key: str) -> Sequence[str] | None:
        """IAM does not tell upper case from lower in keys, and so in a tag's key that is part of one."""
        return [value for name, of in self.keys.items() if name.lower() == key.lower() for value in of] or None


def allowed(policies: Iterable[Mapping[str, Any]], asked: Asked) -> bool:
    """Whether a statement allows what is asked, and none denies it.

    Raises ValueError when a policy has what is not understood here.
    """
    effects = {
        statement["Effect"] for policy in policies for statement in policy["Statement"] if _concerns(statement, asked)
    }
    if unknown := effects - {"Allow", "Deny"}:
        raise ValueError(f"an effect is Allow or Deny, not {', '.join(unknown)}")
    return effects == {"Allow"}


def _concerns(statement: Mapping[str, Any], asked: Asked) -> bool:
    if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
        raise ValueError(f"{', '.join(sorted(unknown))} of a statement is not understood")
    conditions = [
        _holds(operator, key, _several(expected), asked)
        for operator, keys in statement.get("Condition", {}).items()
        for key, expected in keys.items()
    ]
    return (
        any(_like(asked.action.lower(), pattern.lower()) for pattern in _several(statement["Action"]))
        and any(_like(asked.resource, pattern) for pattern in _several(statement["Resource"]))
        and all(conditions)
    )


def _several(one_or_more: str | Sequence[str]) -> Sequence[str]:
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more


def _like(value: str, pattern: str) -> bool:
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


_TESTS: Mapping[str, Callable[[str, Sequence[str]], bool]] = {
    "StringEquals": lambda value, expected: value in expected,
    "StringNotEquals": lambda value, expected: value not in expected,
    "StringLike": lambda value, expected: any(_like(value, pattern) for pattern in expected),
}


def _holds(operator: str, key: str, expected: Sequence[str], asked: Asked) -> bool:
    values = asked.value(key)
    if operator == "Null":
        [missing] = expected
        return (values is None) == {"true": True, "false": False}[missing]
    quantity, colon, name = operator.rpartition(":")
    base = name.removesuffix("IfExists")
    if base not in _TESTS or quantity not in ("", "ForAllValues", "ForAnyValue") or bool(colon) != bool(quantity):
        raise ValueError(f"the condition operator {operator} is not understood")
    if not values:
        # Of a key that is not known, a denial of equality holds, and so does anything of all its values.
        return name.endswith("IfExists") or quantity == "ForAllValues" or (base == "StringNotEquals" and not quantity)
    met = [_TESTS[base](value, expected) for value in values]
    if quantity:
        return any(met) if quantity == "ForAnyValue" else all(met)
    # More than one value of what has one: tags whose keys differ in case only.
    return met == [True]
