"""Reads keys of a stack's configuration and collects what is wrong with them, so that one run names every mistake."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar, cast

MOST_TAGS = 40
"""AWS takes 50 a resource (Tagging AWS Resources User Guide); ten are left for those of the program and of AWS."""

PRIVATE_KEY = re.compile(r"PRIVATE[\s\\nrt]*KEY|Private-Lines|b3BlbnNzaC1rZXktdjE|LS0tLS1CRUdJTi", re.IGNORECASE)
"""What a private key has in it: in PEM form, in PuTTY's, OpenSSH's own without the lines around it, PEM in base64."""

MISPLACED = (
    "contains a private key, which is only allowed in sshPrivateKey, encrypted. If sshPublicKey and sshPrivateKey are "
    "swapped, set both again: pulumi config set sshPublicKey < KEY.pub; pulumi config set --secret sshPrivateKey < KEY"
)

MAY_HOLD_PRIVATE_KEY = ("sshPrivateKey", "gitlabRb")

LONGEST_SHOWN = 300
"""Characters of a value in a message."""

LINE_ENDS = "\r\n"
"""Of a secret, at its ends: `pulumi config set --secret KEY < FILE` leaves some, and they are no part of it."""

T = TypeVar("T")

Check = Callable[[str], T]
"""Makes a value of a key's text. Raises ValueError that says what is wrong: "is not a version such as 17.10.4"."""


class ConfigSource(Protocol):
    """What the reader needs of `pulumi.Config`."""

    def get(self, key: str) -> str | None:
        """The text of a key, JSON for lists and maps; None when it is not set."""

    def names(self) -> Iterable[str]:
        """Every key that is set, without the namespace."""


class Reader:
    """Reads the keys of one project.

    A method never raises for a wrong value: it adds a line to `problems` and goes on, and then what it returns is not
    of its type. So whoever reads has to look at `problems` before using any value, as `Settings.load` does.
    `is_secret` tells whether a key is encrypted in the stack's file. Blanks and line ends around a text do not count,
    but in secrets. Nothing that is encrypted or holds a private key is shown.
    """

    def __init__(self, config: ConfigSource, is_secret: Callable[[str], bool]) -> None:
        self._config = config
        self._is_secret = is_secret
        self._known: set[str] = set()
        self.problems: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is set to anything but the empty text, which stands for none in Pulumi.yaml."""
        return bool(self._get(key).strip(LINE_ENDS if self._is_secret(key) else None))

    def refuse_unknown(self) -> None:
        """Add a problem for every key that is set and was never asked for; so this comes last."""
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
        """Add a problem of a value, at a key or inside it, which is shown unless it may be secret."""
        try:
            text = value if isinstance(value, str) else repr(value)
        except RecursionError:
            text = "(deeply nested)"
        if shown is None and PRIVATE_KEY.search(text):
            shown, problem = "(hidden)", MISPLACED
        elif shown is None and self._is_secret(key := re.split(r"[.\[]", place)[0]):
            place, shown = key, "(secret)"
        elif shown is None:
            shown = (repr(value) if isinstance(value, str) else text)[:LONGEST_SHOWN]
        self.problems.append(f"{place}: {shown} {problem}.")

    def required(self, key: str, value: str | None, check: Check[T]) -> T:
        """A value from elsewhere, checked as if it were of this project; `key` is its full name."""
        return self._checked(key, value or "", check)

    def text(self, key: str, check: Check[T]) -> T:
        """A key that has to be set."""
        return self._checked(key, self._get(key), check)

    def hidden(self, key: str, check: Check[T]) -> T | None:
        """A key that may be left out, and whose value is never shown: people mistake it for a secret beside it."""
        return self._checked(key, self._get(key).strip(), check, shown="(hidden)") if self.has(key) else None

    def optional(self, key: str, check: Check[T]) -> T | None:
        """A key that may be left out."""
        return self.text(key, check) if self.has(key) else None

    def secret(self, key: str, check: Check[T]) -> T:
        """A key that has to be set and encrypted; its value is never shown."""
        command = f"pulumi config set --secret {key}"
        if self.has(key) and not self._is_secret(key):
            self.problems.append(f"{key}: stored in plain text. Store it again with: {command}")
        value = self._get(key).strip(LINE_ENDS)
        return self._checked(key, value, check, shown="(secret)", remedy=f"Set it with: {command}")

    def optional_secret(self, key: str, check: Check[T]) -> T | None:
        """A key that may be left out, else has to be encrypted; its value is never shown."""
        return self.secret(key, check) if self.has(key) else None

    def optional_hidden(self, key: str, check: Check[T], secret_lines: Callable[[str], list[int]]) -> T | None:
        """A key that may be left out and may hold secrets: never shown, and accepted in plain text as well when none of
        its lines looks secret. `secret_lines` gives the numbers of those that do.
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
        """A whole number from `lowest` to `highest`, both included; `reason` says why there are no more."""

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

    def sequence(self, key: str, check: Check[T], *, empty_allowed: bool = False) -> tuple[T, ...]:
        """A list of strings without duplicates, each of them checked; it may be left out when it may be empty."""
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
        known = len(self.problems)
        places = [f"{key}[{position}]" for position in range(len(values))]
        texts = [(place, self._text(place, value)) for place, value in zip(places, values, strict=True)]
        checked = tuple(self._checked(place, text, check) for place, text in texts if text is not None)
        # Only of right values: what stands for the wrong ones is the same for all.
        if len(self.problems) == known and len(set(checked)) != len(checked):
            self.refuse(key, values, "contains duplicates. List each value once")
        return checked

    def mapping(self, key: str, check: Callable[[str, str], None]) -> Mapping[str, str]:
        """A map of strings, which may be left out; `check` raises ValueError for a name or value that is wrong."""
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
        texts = {}
        for name, value in values.items():
            place = _place(key, name)
            text = self._text(place, value)
            if text is None:
                continue
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
                self.refuse(_place(key, name), name, str(problem))
        return values

    def items(self, key: str) -> list[object]:
        """The items of a list of any kind, which may be left out; whoever asks checks them."""
        values = self._structure(key)
        if values is not None and not isinstance(values, list):
            self.refuse(key, values, "is not a list")
        return values if isinstance(values, list) else []

    def _get(self, key: str) -> str:
        """The text of a key, which is known from now on; the empty one when it is not set."""
        self._known.add(key)
        return self._config.get(key) or ""

    def _structure(self, key: str) -> object:
        """The value of a key that holds JSON; its text when that is none, for the message that says what it is not."""
        text = self._get(key)
        if not text.strip():
            return None
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return value

    def _text(self, place: str, value: object) -> str | None:
        """The text of an entry. `pulumi config set --path` keeps true, false and whole numbers as such: they are taken
        as they were typed. None, and a problem, for anything else.
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
        # There is no T. That this is none cannot be noticed: with a problem, nobody gets the settings made of it.
        return cast("T", None)


def _place(key: str, name: str) -> str:
    """Where an entry of a map is; the map alone when its name cannot be shown."""
    return f"{key}.{name}" if name.isprintable() and not PRIVATE_KEY.search(name) else key


def _bare(name: str) -> str:
    """A key's name without what people get wrong in it."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
