"""Which versions of GitLab get security fixes. Versions are MAJOR.MINOR.PATCH, releases are MAJOR.MINOR.

GitLab backports security fixes "to the previous two monthly releases in addition to the current stable release"
(gitlabhq, doc/policy/maintenance.md), so a release gets none once the third after it is out. A fixed table, not a
clock: what is warned of and what is refused changes with this program only, never between two runs of it.
"""

import datetime

AS_OF = datetime.date(2026, 11, 27)
"""The day of the table."""

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
"""The day of each monthly release, which the same page sets for the third Thursday of the month. Seen to hold by the
patch releases: on 2026-09-23 they were 19.4.1, 19.3.3 and 19.2.7 (GitLab's release posts).
"""

OLDEST = (17, 8)
"""The first release of the table, and GitLab's first required stop that the program knows (configuration/
upgrade_stops.py). No older one was ever set up by it.
"""

GETS_FIXES = 3
"""The newest releases, of which each patch release has one."""

MAINTAINED = tuple(RELEASED)[-GETS_FIXES:]
"""The releases that get security fixes on the day of the table."""


def fixes_ended(version: str) -> datetime.date | None:
    """The day since which a version gets no security fixes, for one older than the table the first such day in it; None
    for a version that gets them, or is newer than the table.
    """
    if _release(version) >= _release(MAINTAINED[0]):
        return None
    known = list(RELEASED)
    place = next((number for number, each in enumerate(known) if _release(each) >= _release(version)), 0)
    return RELEASED[known[place + GETS_FIXES]]


def warnings(version: str) -> list[str]:
    """What the owner of a GitLab of that version should know; none when it gets security fixes."""
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
