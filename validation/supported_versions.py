"""Which versions of GitLab receive security fixes. Versions are MAJOR.MINOR.PATCH, releases are MAJOR.MINOR.

GitLab backports security fixes "to the previous two monthly releases in addition to the current stable release"
(gitlabhq, doc/policy/maintenance.md), so a release no longer receives any once the third release after it is out. This
is a fixed table rather than a comparison with today's date, so that warnings and errors change only with the program,
never between two runs of it.
"""

import datetime

AS_OF = datetime.date(2026, 11, 27)
"""The date of the table."""

RELEASED = {
    "17.8": datetime.date(2025, 1, 16),
    "17.9": datetime.date(2025, 2, 20),
    "17.10": datetime.date(2025, 3, 20),
    "17.11": datetime.date(2025, 4, 17),
    "18.0": datetime.date(2025, 5, 15),
    "18.1": datetime.date(2025, 6, 19),
    "18.2": datetime.date(2025, 7, 17),
    "18.3": datetime.date(2025, 8, 21),
    "18.4": datetime.date(2025, 9, 18),
    "18.5": datetime.date(2025, 10, 16),
    "18.6": datetime.date(2025, 11, 20),
    "18.7": datetime.date(2025, 12, 18),
    "18.8": datetime.date(2026, 1, 15),
    "18.9": datetime.date(2026, 2, 19),
    "18.10": datetime.date(2026, 3, 19),
    "18.11": datetime.date(2026, 4, 16),
    "19.0": datetime.date(2026, 5, 21),
    "19.1": datetime.date(2026, 6, 18),
    "19.2": datetime.date(2026, 7, 16),
    "19.3": datetime.date(2026, 8, 20),
    "19.4": datetime.date(2026, 9, 17),
    "19.5": datetime.date(2026, 10, 15),
    "19.6": datetime.date(2026, 11, 19),
}
"""The date of each monthly release: the third Thursday of the month, according to the same page. The patch releases
confirm it: on 2026-09-23 they were 19.4.1, 19.3.3 and 19.2.7 (GitLab's release posts).
"""

OLDEST = (17, 8)
"""The first release of the table, and the first required stop in configuration/upgrade_stops.py. The program never
supported an older release.
"""

GETS_FIXES = 3
"""Number of the newest releases that receive patch releases."""

MAINTAINED = tuple(RELEASED)[-GETS_FIXES:]
"""The releases that receive security fixes on the date of the table."""


def fixes_ended(version: str) -> datetime.date | None:
    """The date since which a version receives no security fixes; for a version older than the table, the first such
    date in it. None for a version that still receives them or is newer than the table.
    """
    if _release(version) >= _release(MAINTAINED[0]):
        return None
    known = list(RELEASED)
    place = next((number for number, each in enumerate(known) if _release(each) >= _release(version)), 0)
    return RELEASED[known[place + GETS_FIXES]]


def warnings(version: str) -> list[str]:
    """A warning if that version of GitLab no longer receives security fixes."""
    ended = fixes_ended(version)
    if ended is None:
        return []
    return [
        (
            f"gitlabVersion: GitLab {version} has received no security fixes since {ended}. As of {AS_OF}, "
            f"{', '.join(MAINTAINED)} receive them. Upgrade along the required stops: docs/operations.md, Upgrade."
        )
    ]


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
