"""Validates the calendar expressions of systemd.time(7) as systemd 239 of RHEL 8 parses them
(src/basic/calendarspec.c), with one restriction: at most one run per hour.
"""

import functools
import re

SHORTHANDS = (
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "semi-annually",
    "biannually",
    "bi-annually",
    "annually",
    "yearly",
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
YEARS, MONTHS, DAYS, HOURS, SIXTIETHS = (1970, 2199), (1, 12), (1, 31), (0, 23), (0, 59)

NO_CALENDAR = "is not a systemd calendar expression such as daily, Sun 03:00 or *-*-01 04:30 Europe/Berlin"
TOO_OFTEN = "runs more than once an hour, and one run may take longer than that. Use a single minute, as in Sun 03:00"

_WORD = re.compile(r"[A-Za-z]+")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_PART = re.compile(r"([0-9]+)(?:\.\.([0-9]+))?(?:/([0-9]+))?")


def calendar(value: str) -> str:
    """A calendar expression. Raises ValueError for anything else, and for more than one run per hour."""
    if not value.isascii() or not value.isprintable():
        raise ValueError(NO_CALENDAR)
    spec = _without_zone(value)
    if spec.lower() in SHORTHANDS:
        return value
    if spec.lower() == "minutely":
        raise ValueError(TOO_OFTEN)
    words = [word for word in _without_weekdays(spec).split(" ") if word]
    time = words.pop() if words and ":" in words[-1] else "00:00"
    if len(words) > 1 or not (words or ":" in spec or spec[:1].isalpha()):
        raise ValueError(NO_CALENDAR)
    if words:
        _check_date(words[0])
    _check_time(time)
    return value


def _without_zone(value: str) -> str:
    spec, _, last = value.rpartition(" ")
    if not spec or not _ZONE.fullmatch(last) or _weekday(re.split(r"[.,-]", last)[0]) is not None:
        return value
    # The computer that runs the program may lack a time zone database; the machines have one.
    known = _zones()
    if last.upper() != "UTC" and known and last not in known:
        if "/" not in last:
            raise ValueError(NO_CALENDAR)
        raise ValueError("has an unknown time zone. Use one such as Europe/Berlin, or UTC")
    if spec.endswith(" "):
        raise ValueError(NO_CALENDAR)
    return spec


@functools.cache
def _zones() -> frozenset[str]:
    import zoneinfo  # noqa: PLC0415  importing it searches the file system, and most settings contain no zone

    return frozenset(zoneinfo.available_timezones())


def _without_weekdays(spec: str) -> str:
    """The expression without its weekdays: full names or three letters, separated by commas; ranges must not wrap."""
    first, _, rest = spec.partition(" ")
    if not first[:1].isalpha():
        return spec
    for part in first.removesuffix(",").split(","):
        ends = [_weekday(name) for name in re.split(r"\.\.|-", part)]
        if len(ends) > 2 or None in ends or ends != sorted(ends, key=lambda end: end or 0):
            raise ValueError(NO_CALENDAR)
    return rest


def _weekday(name: str) -> int | None:
    found = [number for number, day in enumerate(WEEKDAYS) if name.lower() in (day, day[:3])]
    return found[0] if found else None


def _check_date(date: str) -> None:
    parts = re.split(r"[-~]", date)
    separators = re.sub(r"[^-~]", "", date)
    if len(parts) not in (2, 3) or "~" in separators[:-1]:
        raise ValueError(NO_CALENDAR)
    *years, months, days = parts
    for year in years:
        _numbers(re.sub(r"(?<![0-9])([0-9]{2})(?![0-9])", r"20\1", year), YEARS)
    _numbers(months, MONTHS)
    # Days counted from the end of a month go back 28 days at most.
    _numbers(days, (1, 28) if separators.endswith("~") else DAYS, backwards=separators.endswith("~"))


def _check_time(time: str) -> None:
    hours, minutes, *seconds = time.split(":")
    _numbers(hours, HOURS)
    often = not re.fullmatch("[0-9]+", minutes)
    _numbers(minutes, SIXTIETHS)
    for second in seconds[:1]:
        whole = re.sub(r"(?<=[0-9])\.[0-9]{1,6}(?![0-9.])", "", second)
        often = often or not re.fullmatch("[0-9]+", whole)
        _numbers(whole, SIXTIETHS)
    if len(seconds) > 1:
        raise ValueError(NO_CALENDAR)
    if often:
        raise ValueError(TOO_OFTEN)


def _numbers(chain: str, bounds: tuple[int, int], *, backwards: bool = False) -> None:
    """Check `*`, or a comma-separated list of numbers, each with an optional end and step."""
    if chain == "*":
        return
    lowest, highest = bounds
    for part in chain.split(","):
        found = _PART.fullmatch(part)
        if not found or any(len(text) > 4 for text in found.groups("")):
            raise ValueError(NO_CALENDAR)
        start, end, step = (int(text) if text else None for text in found.groups())
        last = end if end is not None else lowest if backwards else highest
        if start is None or not lowest <= start <= highest or not lowest <= last <= highest:
            raise ValueError(NO_CALENDAR)
        if (end is not None and end <= start) or step == 0 or (step or 0) > abs(last - start):
            raise ValueError(NO_CALENDAR)
