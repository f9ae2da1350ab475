"""Reads keys of a stack's configuration and collects what is wrong with them, so that one run names every mistake."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Protocol, TypeGuard, TypeVar, cast

MOST_TAGS = 40
"""AWS takes 50 a resource (Tagging AWS Resources User Guide); ten are left for those of the program and of AWS."""

T = TypeVar("T")

Check = Callable[[str], T]
"""Makes a value of a key's text. Raises ValueError that says what is wrong: "is not a version such as 17.10.4"."""


class ConfigSource(Protocol):
    """What the reader needs of `pulumi.Config`."""

    def get(self, key: str) -> str | None:
        """The text of a key, JSON for lists and maps; None when it is not set."""


class Reader:
    """Reads the keys of one project.

    A method never raises for a wrong value: it adds a line to `problems` and goes on, and then what it returns is not
    of its type. So whoever reads has to look at `problems` before using any value, as `Settings.load` does.
    `is_secret` tells whether a key is encrypted in the stack's file.
    """

    def __init__(self, config: ConfigSource, is_secret: Callable[[str], bool]) -> None:
        self._config = config
        self._is_secret = is_secret
        self.problems: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is set to anything but the empty text, which stands for none in Pulumi.yaml."""
        return bool(self._config.get(key))

    def required(self, key: str, value: str | None, check: Check[T]) -> T:
        """A value from elsewhere, checked as if it were of this project; `key` is its full name."""
        return self._checked(key, value, check)

    def text(self, key: str, check: Check[T]) -> T:
        """A key that has to be set."""
        return self._checked(key, self._config.get(key), check)

    def optional(self, key: str, check: Check[T]) -> T | None:
        """A key that may be left out."""
        return self.text(key, check) if self.has(key) else None

    def secret(self, key: str, check: Check[T]) -> T:
        """A key that has to be set and encrypted; its value is never shown."""
        command = f"pulumi config set --secret {key}"
        if self.has(key) and not self._is_secret(key):
            self.problems.append(f"{key}: stored in plain text. Store it again with: {command}")
        return self._checked(key, self._config.get(key), check, shown="(secret)", remedy=f"Set it with: {command}")

    def optional_secret(self, key: str, check: Check[T]) -> T | None:
        """A key that may be left out, else has to be encrypted; its value is never shown."""
        return self.secret(key, check) if self.has(key) else None

    def optional_hidden(self, key: str, check: Check[T], secret_lines: Callable[[str], list[int]]) -> T | None:
        """A key that may be left out and may hold secrets: never shown, and accepted in plain text as well when none of
        its lines looks secret. `secret_lines` gives the numbers of those that do.
        """
        value = self._config.get(key)
        if not value:
            return None
        if not self._is_secret(key) and (lines := secret_lines(value)):
            numbers = ", ".join(map(str, lines))
            self.problems.append(
                f"{key}: stored in plain text, with what looks like a secret in line {numbers}. "
                f"Store it again with: pulumi config set --secret {key} < FILE"
            )
        return self._checked(key, value, check, shown="(hidden)")

    def number(self, key: str, lowest: int, highest: int, *, reason: str | None = None) -> int:
        """A whole number from `lowest` to `highest`, both included; `reason` says why there are no more."""

        def whole(value: str) -> int:
            if not re.fullmatch(r"-?\d+", value) or not lowest <= int(value) <= highest:
                raise ValueError(f"is not a whole number from {lowest} to {highest}{f': {reason}' if reason else ''}")
            return int(value)

        return self.text(key, whole)

    def boolean(self, key: str) -> bool:
        """`true` or `false`."""

        def truth(value: str) -> bool:
            if value not in ("true", "false"):
                raise ValueError("is neither true nor false")
            return value == "true"

        return self.text(key, truth)

    def sequence(self, key: str, check: Check[T], *, empty_allowed: bool = False) -> tuple[T, ...]:
        """A list of strings without duplicates, each of them checked; it may be left out when it may be empty."""
        values = self._structure(key)
        if values is None:
            if not empty_allowed:
                self.problems.append(f"{key}: missing.")
            return ()
        if not _is_list_of_strings(values):
            self.problems.append(f"{key}: {values!r} is not a list of strings.")
            return ()
        if not values and not empty_allowed:
            self.problems.append(f"{key}: empty. Name at least one.")
        known = len(self.problems)
        checked = tuple(self._checked(f"{key}[{position}]", value, check) for position, value in enumerate(values))
        # Only of right values: what stands for the wrong ones is the same for all.
        if len(self.problems) == known and len(set(checked)) != len(checked):
            self.problems.append(f"{key}: {values!r} contains duplicates. List each value once.")
        return checked

    def mapping(self, key: str, check: Callable[[str, str], None]) -> Mapping[str, str]:
        """A map of strings, which may be left out; `check` raises ValueError for a name or value that is wrong."""
        values = self._structure(key)
        if values is None:
            return {}
        if not _is_map_of_strings(values):
            self.problems.append(f"{key}: {values!r} is not a map of strings.")
            return {}
        if len(values) > MOST_TAGS:
            self.problems.append(f"{key}: {len(values)} tags. AWS takes 50 a resource, ten are kept for the program.")
        for name, value in values.items():
            try:
                check(name, value)
            except ValueError as problem:
                self.problems.append(f"{key}.{name}: {value!r} {problem}.")
        return values

    def structure(self, key: str, check: Callable[[str], None]) -> Mapping[str, object]:
        """A map with values of any kind, which may be left out and may hold secrets: no value is ever shown. `check`
        raises ValueError for a name that is wrong.
        """
        values = self._structure(key)
        if values is None:
            return {}
        if not isinstance(values, dict):
            self.problems.append(f"{key}: (hidden) is not a map.")
            return {}
        for name in values:
            try:
                check(name)
            except ValueError as problem:
                self.problems.append(f"{key}.{name}: {name!r} {problem}.")
        return values

    def items(self, key: str) -> list[object]:
        """The items of a list of any kind, which may be left out; whoever asks checks them, and none is shown."""
        values = self._structure(key)
        if values is not None and not isinstance(values, list):
            self.problems.append(f"{key}: not a list.")
        return values if isinstance(values, list) else []

    def _structure(self, key: str) -> object:
        """The value of a key that holds JSON; its text when that is none, for the message that says what it is not."""
        text = self._config.get(key)
        if text is None:
            return None
        try:
            value: object = json.loads(text)
        except ValueError:
            return text
        return value

    def _checked(
        self,
        key: str,
        value: str | None,
        check: Check[T],
        *,
        shown: str | None = None,
        remedy: str = "Set it in the stack's file.",
    ) -> T:
        if value:
            try:
                return check(value)
            except ValueError as error:
                self.problems.append(f"{key}: {shown or repr(value)} {error}.")
        else:
            self.problems.append(f"{key}: missing. {remedy}")
        # There is no T. That this is none cannot be noticed: with a problem, nobody gets the settings made of it.
        return cast("T", None)


def _is_list_of_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_map_of_strings(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
