"""Reads the keys of a stack's configuration and collects all problems, so that one run reports every mistake."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar, cast

MOST_TAGS = 40
"""AWS allows 50 per resource (Tagging AWS Resources User Guide); ten are reserved for the program and AWS."""

PRIVATE_KEY = re.compile(r"PRIVATE[\s\\nrt]*KEY|Private-Lines|b3BlbnNzaC1rZXktdjE|LS0tLS1CRUdJTi", re.IGNORECASE)
"""Matches private keys in PEM and PuTTY format, OpenSSH's format without BEGIN and END, and base64-encoded PEM."""

MISPLACED = (
    "contains a private key, which is only allowed in sshPrivateKey, encrypted. If sshPublicKey and sshPrivateKey are "
    "swapped, set both again: pulumi config set sshPublicKey < KEY.pub; pulumi config set --secret sshPrivateKey < KEY"
)
MISPLACED_OF_CERTIFICATE = (
    "contains a private key, which is only allowed in certificateKeyPem, encrypted. Set the certificates alone, "
    "and the key with: pulumi config set --secret certificateKeyPem < KEY"
)

MAY_HOLD_PRIVATE_KEY = ("sshPrivateKey", "certificateKeyPem", "gitlabRb")

LONGEST_SHOWN = 300
"""Characters of a value in a message."""

LINE_ENDS = "\r\n"
"""Stripped from both ends of a secret: `pulumi config set --secret KEY < FILE` keeps the line break of the file."""

T = TypeVar("T")

Check = Callable[[str], T]
"""Converts a key's string to its value. Raises ValueError with the problem: "is not a version such as 17.10.4"."""


class ConfigSource(Protocol):
    """The part of `pulumi.Config` that the reader needs."""

    def get(self, key: str) -> str | None:
        """The string of a key, JSON for lists and maps; None if it is not set."""

    def names(self) -> Iterable[str]:
        """Every key that is set, without the namespace."""


class Reader:
    """Reads the keys of one project.

    Methods never raise for an invalid value: they add a line to `problems`, and then their return value does not have
    the declared type. So callers must check `problems` before they use any value, as `Settings.load` does.
    `is_secret` returns whether a key is encrypted in the stack's file. Whitespace around a string is ignored, except in
    secrets. Problems never show values that are encrypted or contain a private key.
    """

    def __init__(self, config: ConfigSource, is_secret: Callable[[str], bool]) -> None:
        self._config = config
        self._is_secret = is_secret
        self._known: set[str] = set()
        self.problems: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is set to anything but the empty string, which means "not set" in Pulumi.yaml."""
        return bool(self._get(key).strip(LINE_ENDS if self._is_secret(key) else None))

    def refuse_unknown(self) -> None:
        """Add a problem for every key that is set but was never read; so call this last."""
        known = {_bare(name): name for name in self._known}
        for name in sorted(set(self._config.names()) - self._known):
            if PRIVATE_KEY.search(name) and not re.fullmatch(r"\w{1,40}", name):
                self.problems.append(f"(hidden): the name of a key {MISPLACED}.")
                continue
            nearest = difflib.get_close_matches(_bare(name), known, n=1)
            meant = f"Did you mean {known[nearest[0]]}? " if nearest else ""
            shown = name if name.isprintable() else ascii(name)
            self.problems.append(f"{shown}: unknown setting. {meant}Remove it: pulumi config rm {shown}")

    def refuse(self, place: str, value: object, problem: str, *, shown: str | None = None) -> None:
        """Add a problem of the value at `place`, a key or a position in it; show the value unless it may be secret."""
        try:
            text = value if isinstance(value, str) else repr(value)
        except RecursionError:
            text = "(deeply nested)"
        if shown is None and PRIVATE_KEY.search(text):
            shown = "(hidden)"
            problem = MISPLACED_OF_CERTIFICATE if place.startswith("certificate") else MISPLACED
        elif shown is None and self._is_secret(key := re.split(r"[.\[]", place)[0]):
            place, shown = key, "(secret)"
        elif shown is None:
            shown = (repr(value) if isinstance(value, str) else text)[:LONGEST_SHOWN]
        self.problems.append(f"{place}: {shown} {problem}.")

    def required(self, key: str, value: str | None, check: Check[T]) -> T:
        """A value from another namespace, checked like the project's own; `key` is its full name."""
        return self._checked(key, value or "", check)

    def text(self, key: str, check: Check[T]) -> T:
        """A required key."""
        return self._checked(key, self._get(key), check)

    def hidden(self, key: str, check: Check[T]) -> T | None:
        """An optional key whose value is never shown, because users confuse it with the secret next to it."""
        return self._checked(key, self._get(key).strip(), check, shown="(hidden)") if self.has(key) else None

    def optional(self, key: str, check: Check[T]) -> T | None:
        """An optional key."""
        return self.text(key, check) if self.has(key) else None

    def secret(self, key: str, check: Check[T]) -> T:
        """A required key that must be encrypted; its value is never shown."""
        command = f"pulumi config set --secret {key}"
        if self.has(key) and not self._is_secret(key):
            self.problems.append(f"{key}: stored in plain text. Store it again with: {command}")
        value = self._get(key).strip(LINE_ENDS)
        return self._checked(key, value, check, shown="(secret)", remedy=f"Set it with: {command}")

    def optional_secret(self, key: str, check: Check[T]) -> T | None:
        """An optional key that must be encrypted if it is set; its value is never shown."""
        return self.secret(key, check) if self.has(key) else None

    def optional_hidden(self, key: str, check: Check[T], secret_lines: Callable[[str], list[int]]) -> T | None:
        """An optional key that may contain secrets: its value is never shown, and plain text is accepted only if no
        line looks like a secret. `secret_lines` returns the numbers of the lines that do.
        """
        value = self._get(key)
        if not value:
            return None
        if not self._is_secret(key) and (lines := secret_lines(value)):
            numbers = ", ".join(map(str, lines))
            self.problems.append(
                f"{key}: stored in plain text, but appears to contain a secret in line {numbers}. "
                f"Store it again with: pulumi config set --secret {key} < FILE"
            )
        return self._checked(key, value, check, shown="(hidden)")

    def number(self, key: str, lowest: int, highest: int, *, reason: str | None = None) -> int:
        """A whole number from `lowest` to `highest`, inclusive; `reason` explains the upper limit."""

        def whole(value: str) -> int:
            if not re.fullmatch(r"-?[0-9]{1,18}", value) or not lowest <= int(value) <= highest:
                raise ValueError(f"is not a whole number from {lowest} to {highest}{f': {reason}' if reason else ''}")
            return int(value)

        return self.text(key, whole)

    def boolean(self, key: str) -> bool:
        """`true` or `false`."""

        def truth(value: str) -> bool:
            if value not in ("true", "false", "True", "False"):  # as pulumi.Config.get_bool
                raise ValueError("is neither true nor false")
            return value in ("true", "True")

        return self.text(key, truth)

    def sequence(
        self, key: str, check: Check[T], *, empty_allowed: bool = False, most: int | None = None, reason: str = ""
    ) -> tuple[T, ...]:
        """A list of unique strings, each of them checked; optional if `empty_allowed`. `most` is the highest number of
        them, and `reason` explains it.
        """
        values = self._structure(key)
        if values is None:
            if not empty_allowed:
                self.problems.append(f"{key}: missing.")
            return ()
        if not isinstance(values, list):
            self.refuse(key, values, "is not a list of strings")
            return ()
        if not values and not empty_allowed:
            self.problems.append(f"{key}: empty. List at least one value.")
        if most is not None and len(values) > most:
            self.problems.append(f"{key}: {len(values)} values. List at most {most}: {reason}.")
        known = len(self.problems)
        places = [f"{key}[{position}]" for position in range(len(values))]
        texts = [(place, self._text(place, value)) for place, value in zip(places, values, strict=True)]
        checked = tuple(self._checked(place, text, check) for place, text in texts if text is not None)
        # Only if all values are valid: the placeholders of invalid ones are equal.
        if len(self.problems) == known and len(set(checked)) != len(checked):
            self.refuse(key, values, "contains duplicates. List each value once")
        return checked

    def mapping(self, key: str, check: Callable[[str, str], None]) -> Mapping[str, str]:
        """An optional map of strings; `check` raises ValueError for an invalid name or value."""
        values = self._structure(key)
        if values is None:
            return {}
        if not isinstance(values, dict):
            self.refuse(key, values, "is not a map of strings")
            return {}
        if len(values) > MOST_TAGS:
            self.problems.append(
                f"{key}: {len(values)} tags. Set at most {MOST_TAGS}: AWS allows 50 per resource, and ten are reserved."
            )
        texts: dict[str, str] = {}
        for name, value in values.items():
            place = _place(key, name)
            text = self._text(place, value)
            if text is None:
                continue
            if any(name.lower() == other.lower() for other in texts):
                self.refuse(place, text, "differs from another tag only in case, which IAM does not distinguish")
            texts[name] = text
            try:
                check(name, text)
            except ValueError as problem:
                self.refuse(place, text, str(problem))
            else:
                if PRIVATE_KEY.search(name + text):
                    self.refuse(place, name + text, MISPLACED)
        return texts

    def structure(self, key: str, check: Callable[[str], None]) -> Mapping[str, object]:
        """An optional map with values of any type. It may contain secrets, so no value is ever shown. `check` raises
        ValueError for an invalid name.
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
                self.refuse(_place(key, name), name, str(problem))
        return values

    def items(self, key: str) -> list[object]:
        """The items of an optional list; the caller checks them."""
        values = self._structure(key)
        if values is not None and not isinstance(values, list):
            self.refuse(key, values, "is not a list")
        return values if isinstance(values, list) else []

    def _get(self, key: str) -> str:
        """The string of a key, empty if it is not set; marks the key as known."""
        self._known.add(key)
        return self._config.get(key) or ""

    def _structure(self, key: str) -> object:
        """The value of a key that contains JSON; its string if it is not valid JSON, so that the error can show it."""
        text = self._get(key)
        if not text.strip():
            return None
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return value

    def _text(self, place: str, value: object) -> str | None:
        """The string of an entry. `pulumi config set --path` stores true, false and whole numbers as such; they are
        converted back to strings. For anything else, adds a problem and returns None.
        """
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return str(value)
        self.refuse(place, value, "is not a string. Put it in quotes")
        return None

    def _checked(
        self,
        key: str,
        value: str,
        check: Check[T],
        *,
        shown: str | None = None,
        remedy: str = "Set it in the stack's file.",
    ) -> T:
        if shown is None:
            value = value.strip()
        if not value:
            self.problems.append(f"{key}: missing. {remedy}")
        elif PRIVATE_KEY.search(value) and key not in MAY_HOLD_PRIVATE_KEY:
            self.refuse(key, value, MISPLACED)
        else:
            try:
                return check(value)
            except ValueError as error:
                self.refuse(key, value, str(error), shown=shown)
        # None is not a T, but the caller discards all values if there is a problem.
        return cast("T", None)


def _place(key: str, name: str) -> str:
    """The place of a map's entry; only the map's key if the entry's name cannot be shown."""
    return f"{key}.{name}" if name.isprintable() and not PRIVATE_KEY.search(name) else key


def _bare(name: str) -> str:
    """A key's name in lower case, without punctuation, to compare misspelled names."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
