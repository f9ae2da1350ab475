"""The outcome of a check: it returns what it has checked, or raises FailedCheckError."""

from typing import NoReturn, Sequence

MOST_ITEMS = 5
MAX_LENGTH = 300  # characters of one item


class FailedCheckError(Exception):
    """The check fails; the message describes what was observed."""


def not_understood(what: str) -> NoReturn:
    """Fail because of output that is not understood: it must not count as passed."""
    raise FailedCheckError(f"output not understood: {what[:MAX_LENGTH] or 'there is none'}")


def listed(items: Sequence[str]) -> str:
    """The first items, each shortened, and how many more there are."""
    text = "; ".join(item.strip()[:MAX_LENGTH] for item in items[:MOST_ITEMS])
    more = len(items) - MOST_ITEMS
    return f"{text}; and {more} more" if more > 0 else text


def number(count: int, one: str, many: str = "") -> str:
    """A count and its noun: 1 row, 2 rows."""
    return f"{count} {one if count == 1 else many or one + 's'}"
