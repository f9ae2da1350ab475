"""Evaluates policies as IAM does: pure functions of policy documents and requested actions.

Supports only what the policies of docs/iam and of the machines' roles use, and raises an error for the rest, so that a
policy with unsupported elements is not considered correct. Source: IAM User Guide, "Policy evaluation logic", "IAM
JSON policy elements" and "Variables and tags" (`${*}`, `${?}` and `${$}` are the characters themselves).
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One action on one resource: its ARN, or `*` for an action without resource types. `keys` are the condition keys
    in the request context, with their values; a key that is missing or has no values is not in it.
    """

    action: str
    resource: str
    keys: Mapping[str, Sequence[str]]

    def value(self, key: str) -> Sequence[str] | None:
        """Return the values of a key, None without any. IAM ignores case in keys, also of a tag key in one."""
        return [value for name, of in self.keys.items() if name.lower() == key.lower() for value in of] or None


def allowed(policies: Iterable[Mapping[str, Any]], asked: Asked) -> bool:
    """Whether a statement allows the action, and none denies it.

    Raises ValueError if a policy has an element that is not supported here.
    """
    effects = {
        statement["Effect"] for policy in policies for statement in policy["Statement"] if _concerns(statement, asked)
    }
    if unknown := effects - {"Allow", "Deny"}:
        raise ValueError(f"Effect must be Allow or Deny, not {', '.join(unknown)}")
    return effects == {"Allow"}


def _concerns(statement: Mapping[str, Any], asked: Asked) -> bool:
    if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
        raise ValueError(f"{', '.join(sorted(unknown))} in a statement is not supported")
    conditions = [
        (key, _condition(operator, tuple(_several(expected))))
        for operator, keys in statement.get("Condition", {}).items()
        for key, expected in keys.items()
    ]
    return (
        any(_names(pattern, asked.action) for pattern in _several(statement["Action"]))
        and any(_like(asked.resource, pattern) for pattern in _several(statement["Resource"]))
        and all(condition.holds(asked.value(key)) for key, condition in conditions)
    )


@functools.cache  # a call has one of few actions, and each is compared with all patterns of a caller's policies
def _names(pattern: str, action: str) -> bool:
    return _like(action.lower(), pattern.lower())


def _several(one_or_more: str | int | Sequence[str]) -> Sequence[str]:
    return [str(one_or_more)] if isinstance(one_or_more, (str, int)) else one_or_more


def _like(value: str, pattern: str) -> bool:
    return _expression(pattern).fullmatch(value) is not None


@functools.cache  # a policy has few patterns, and each is compared with thousands of values
def _expression(pattern: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    parts = []
    for quoted, variable, character in re.findall(r"\$\{([*?$])\}|(\$\{)|(.)", pattern, re.DOTALL):
        if variable:
            raise ValueError(f"a policy variable in {pattern} is not supported")
        parts.append(wildcards.get(character) or re.escape(quoted or character))
    return re.compile("".join(parts), re.DOTALL)


_TESTS: Mapping[str, Callable[[str, Sequence[str]], bool]] = {
    "StringEquals": lambda value, expected: value in expected,
    "StringNotEquals": lambda value, expected: value not in expected,
    "StringLike": lambda value, expected: any(_like(value, pattern) for pattern in expected),
    "NumericEquals": lambda value, expected: any(float(value) == float(limit) for limit in expected),
    "NumericLessThanEquals": lambda value, expected: any(float(value) <= float(limit) for limit in expected),
}


@dataclass(frozen=True)
class _Condition:
    """An operator, for example `ForAllValues:StringEqualsIfExists`, in its three parts, and what it compares with."""

    quantity: str
    base: str
    if_exists: bool
    expected: tuple[str, ...]

    def holds(self, values: Sequence[str] | None) -> bool:
        """Return whether the values of the condition's key meet it; None if the request does not have the key."""
        if self.base == "Null":
            return (values is None) == (self.expected == ("true",))
        if not values:
            # Without the key, StringNotEquals and every ForAllValues condition hold.
            negated = self.base == "StringNotEquals" and not self.quantity
            return self.if_exists or self.quantity == "ForAllValues" or negated
        met = [_TESTS[self.base](value, self.expected) for value in values]
        if self.quantity:
            return any(met) if self.quantity == "ForAnyValue" else all(met)
        # More than one value of a single-valued key: tags whose keys differ only in case.
        return met == [True]


@functools.cache  # a policy has few conditions, and each is read thousands of times
def _condition(operator: str, expected: tuple[str, ...]) -> _Condition:
    """Return the condition. Raises ValueError if its operator or one of its values is not supported."""
    quantity, colon, name = operator.rpartition(":")
    base = name.removesuffix("IfExists")
    if operator == "Null":
        if expected not in (("true",), ("false",)):
            raise ValueError(f"the value {', '.join(expected)} of Null is not supported")
    elif base not in _TESTS or quantity not in ("", "ForAllValues", "ForAnyValue") or bool(colon) != bool(quantity):
        raise ValueError(f"the condition operator {operator} is not supported")
    if base == "StringLike":
        for pattern in expected:
            _expression(pattern)
    return _Condition(quantity, base, name.endswith("IfExists"), expected)
