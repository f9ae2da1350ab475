"""Where moto is kinder than AWS, or wrong: every correction, by subject.

Beside them is `state`: the few functions with which the reconcile loop tells moto what has become real.
"""

from functools import cache

from lab.cloud.patches import (
    addresses,
    balancers,
    deletion,
    hosted_zones,
    images,
    instances,
    power,
    security_groups,
    tags,
    volumes,
)
from lab.cloud.patches.correction import corrections

SUBJECTS = (tags, images, instances, addresses, power, volumes, deletion, security_groups, balancers, hosted_zones)
"""In this order: what corrects a function of moto again wraps the correction before it."""


@cache
def apply() -> None:
    """Put every correction into moto's classes; a second call does nothing."""
    for subject in SUBJECTS:
        for correct in corrections(subject):
            correct()
