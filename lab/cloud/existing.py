"""Creates in moto the AWS resources that a stack's settings refer to, for previews without access to AWS."""

from collections.abc import Mapping
from typing import Any

from moto.acm.models import acm_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.route53.models import route53_backends
from moto.utilities.utils import get_partition

from lab.cloud.patches import certificates

LAB: Mapping[str, Any] = {
    "regions": ["us-east-1"],
    "images": [],
    "volumes": [],
    "addresses": [],
    "hosted_zones": [{"id": "Z04512873LABEXAMPLECOM", "name": "lab.example.com"}],
    "certificates": [],
}
"""What is there when the lab starts: the public zone that contains the domain in Pulumi.lab.yaml."""


def put(existing: Mapping[str, Any]) -> None:
    """Put images, volumes, addresses, hosted zones and certificates into moto's memory, in each of `regions`.

    `images` and `addresses` are ids; `volumes` have `id`, `size` in GiB and `zone`, and those of a restored stack the
    id of their `snapshot` and more `tags`; `hosted_zones` have `id` and `name`; `certificates` have `arn` and `names`,
    and are issued. Volumes and addresses get `tags`.
    """
    for region in existing["regions"]:
        backend = ec2_backends[DEFAULT_ACCOUNT_ID][region]
        for image_id in existing["images"]:
            if image_id not in backend.amis:
                _put_image(backend, image_id)
        for given in existing["volumes"]:
            if given["zone"].startswith(region):
                _put_volume(backend, given["id"], given["size"], given["zone"]).snapshot_id = given.get("snapshot")
                backend.create_tags([given["id"]], {**existing["tags"], **given.get("tags", {})})
        for allocation_id in existing["addresses"]:
            address = backend.allocate_address("vpc")
            address.id = address.allocation_id = allocation_id
            backend.create_tags([allocation_id], existing["tags"])
        for given in existing["hosted_zones"]:
            _put_hosted_zone(get_partition(region), given["id"], given["name"])
        for given in existing["certificates"]:
            if given["arn"].split(":")[3] == region:
                certificates.put(acm_backends[DEFAULT_ACCOUNT_ID][region], given["arn"], given["names"])


def _put_image(backend: Any, image_id: str) -> None:
    image = backend.register_image(name=f"{image_id} of the settings", description="")
    del backend.amis[image.id]
    image.id = image_id
    image.architecture, image.root_device_type, image.virtualization_type = "x86_64", "ebs", "hvm"
    backend.amis[image_id] = image


def _put_volume(backend: Any, volume_id: str, size: int, zone: str) -> Any:
    volume = backend.create_volume(size=size, zone_name=zone, encrypted=True, volume_type="gp3")
    del backend.volumes[volume.id]
    volume.id = volume_id
    backend.volumes[volume_id] = volume
    return volume


def _put_hosted_zone(partition: str, zone_id: str, name: str) -> None:
    backend = route53_backends[DEFAULT_ACCOUNT_ID][partition]
    if zone_id in backend.zones:
        return
    zone = backend.create_hosted_zone(name=f"{name}.", private_zone=False)
    del backend.zones[zone.resource_id]
    zone.resource_id = zone_id
    backend.zones[zone_id] = zone
