"""Hosted zones of Route 53."""

from typing import Any

from moto.route53 import models

from lab.cloud.patches.correction import correction


@correction
def ids_of_hosted_zones_begin_with_z() -> None:
    """AWS's ids of hosted zones begin with Z (moto: any letter or digit), and calls accept no others. Related upstream:
    getmoto/moto#1044 (closed), getmoto/moto#8988 (closed)."""
    original = models.create_route53_zone_id

    def create_route53_zone_id(*arguments: Any, **named: Any) -> str:
        return f"Z{original(*arguments, **named)[1:]}"

    models.create_route53_zone_id = create_route53_zone_id
