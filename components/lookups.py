"""Lookups of single AWS resources in the settings."""

from collections.abc import Callable
from typing import TypeVar

import pulumi

T = TypeVar("T")


def lookup(function: Callable[[], T]) -> T | None:
    """The result of a lookup that must find exactly one resource; None if it fails."""
    try:
        return function()
    except Exception:  # noqa: BLE001  the SDK has no specific class for a failed invoke
        return None


def not_found(key: str, value: str, remedy: str, *, where: str = "region") -> list[str]:
    """The problem of a key with the ID of a resource that does not exist, or that AWS does not show to this user."""
    problem = f"{key}: AWS did not find {value!r} in this {where}, or denied the request (see its error). {remedy}"
    # A failed invoke ends the program with its own error, regardless of what is raised later; both errors are shown.
    pulumi.log.error(problem)
    return [problem]
