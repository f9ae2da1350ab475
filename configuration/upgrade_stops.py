"""GitLab's requirements for upgrades. Versions are MAJOR.MINOR.PATCH, stops are MAJOR.MINOR."""

REQUIRED_STOPS = ("17.8", "17.11", "18.2", "18.5", "18.8", "18.11", "19.2")
"""Minor versions that an upgrade must not skip. Source: gitlabhq doc/update/upgrade_paths.md, read on 2026-11-22; since
17.8 they match MIN_VERSION in omnibus-gitlab config/templates/package-scripts/preinst.erb.
"""

MINIMUM_POSTGRESQL = {17: 14, 18: 16, 19: 17}
"""The oldest PostgreSQL that each major version of GitLab supports. Source: PG_MIN_VERSION in the same preinst.erb at
17.10.4, 18.0.0 and 19.0.0.
"""


def stops_before(version: str) -> tuple[str, ...]:
    """The required stops below `version`, oldest first: an upgrade must pass through each one above the minor version
    it starts from.
    """
    return tuple(stop for stop in REQUIRED_STOPS if _minor(stop) < _minor(version))


def minimum_postgresql(version: str) -> int:
    """The oldest major version of PostgreSQL that `version` supports; for a release that is not in the table, that of
    the nearest release in it.
    """
    major = _minor(version)[0]
    known = [each for each in MINIMUM_POSTGRESQL if each <= major] or [min(MINIMUM_POSTGRESQL)]
    return MINIMUM_POSTGRESQL[max(known)]


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
