"""Images, key pairs and instance types: which exist."""

from typing import Any

import moto.settings
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.models.instances import Instance
from moto.utilities.utils import get_partition

from lab.cloud.patches.correction import correction

ROOT_SIZE = 10  # GiB, of the RHEL images
RED_HAT = {"aws": "309956199498", "aws-cn": "841258680906", "aws-us-gov": "219670896067"}  # accounts, by partition


@correction
def images_keys_and_types_must_exist() -> None:
    """AWS rejects an unknown image, key pair or instance type; moto does if configured. Upstream: getmoto/moto#5159
    (open), getmoto/moto#5160 (merged)."""
    moto.settings.ENABLE_AMI_VALIDATION = True
    moto.settings.ENABLE_KEYPAIR_VALIDATION = True
    moto.settings.EC2_ENABLE_INSTANCE_TYPE_VALIDATION = True


@correction
def regions_that_moto_has_no_list_of() -> None:
    """moto lists the instance types of each zone for most regions. In the others, which only previews use, every zone
    offers every type. Related upstream: getmoto/moto#3508 (merged)."""
    original = EC2Backend.describe_instance_type_offerings

    def describe_instance_type_offerings(self: Any, location_type: str | None = None, filters: Any = None) -> Any:
        if location_type == "availability-zone" and self.region_name not in INSTANCE_TYPE_OFFERINGS[location_type]:
            everywhere = [
                {"InstanceType": found.name, "Location": zone.name, "LocationType": location_type}
                for found in self.instance_types
                for zone in self.zones.get(self.region_name, ())
            ]
            return [offer for offer in everywhere if self.matches_filters(offer, filters or {}, location_type)]
        return original(self, location_type, filters)

    EC2Backend.describe_instance_type_offerings = describe_instance_type_offerings


@correction
def red_hats_account_in_each_partition() -> None:
    """In China and in GovCloud, Red Hat uses other accounts (moto has one list of images for all regions)."""
    original = AmiBackend._load_amis

    def load(self: Any) -> None:
        original(self)
        owner = RED_HAT.get(get_partition(self.region_name))
        for image in self.amis.values():
            if owner and image.owner_id == RED_HAT["aws"]:
                image.owner_id = owner

    AmiBackend._load_amis = load


@correction
def root_device_of_images() -> None:
    """A RHEL image has a root device of 10 GiB, gp3, deleted with its instance (moto: 15 GiB, kept)."""

    def block_device_mappings(image: Any) -> list[dict[str, Any]]:
        root = {
            "SnapshotId": image.ebs_snapshot.id,
            "VolumeSize": ROOT_SIZE,
            "DeleteOnTermination": True,
            "VolumeType": "gp3",
            "Encrypted": False,
        }
        return [{"DeviceName": image.root_device_name, "Ebs": root}]

    def setup_defaults(instance: Any) -> None:
        instance.add_block_device(ROOT_SIZE, instance.root_device_name, None, False, True, None, "gp3")

    Ami.block_device_mappings = property(block_device_mappings)
    Instance.setup_defaults = setup_defaults
