"""Corrections of moto where it accepts more than AWS, or is wrong, by subject.

`state` has the functions with which the reconcile loop reports to moto what has been created.
"""

from functools import cache

from lab.cloud.patches import (
    addresses,
    balancers,
    certificates,
    deletion,
    hosted_zones,
    images,
    instances,
    listeners,
    power,
    quotas,
    security_groups,
    snapshots,
    tags,
    volumes,
    vpcs,
)
from lab.cloud.patches.correction import corrections

SUBJECTS = (
    *(tags, images, instances, quotas, vpcs, addresses, power, volumes, snapshots, deletion),
    *(security_groups, balancers, listeners, hosted_zones, certificates),
)
"""In this order: a second correction of the same function of moto wraps the first."""


@cache
def apply() -> None:
    """Apply every correction to moto's classes; a second call does nothing."""
    for subject in SUBJECTS:
        for correct in corrections(subject):
            correct()
