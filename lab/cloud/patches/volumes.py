"""Volumes: where they can be attached, and how they grow."""

from datetime import timedelta
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Volume, VolumeModification
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from lab.cloud.patches import state
from lab.cloud.patches.correction import correction

MODIFICATIONS_A_DAY = 4  # per volume


@correction
def gp3_defaults() -> None:
    """A gp3 volume has 125 MiB/s by default; moto omits the throughput. Related upstream: getmoto/moto#6379
    (merged)."""
    original = Volume.__init__

    def initialize(volume: Any, *args: Any, **kwargs: Any) -> None:
        original(volume, *args, **kwargs)
        if volume.volume_type == "gp3":
            volume.throughput = volume.throughput or 125

    Volume.__init__ = initialize


@correction
def volumes_have_one_machine_and_one_zone() -> None:
    """A volume cannot be attached if it is in use, in another zone, or if the device name is in use; attaching and
    detaching take time, and a volume that the machine has mounted stays `detaching`."""
    original_attach, original_detach = EC2Backend.attach_volume, EC2Backend.detach_volume

    def attach_volume(
        self: Any, volume_id: str, instance_id: str, device_path: str, delete_on_termination: bool = False
    ) -> Any:
        volume, instance = self.get_volume(volume_id), self.get_instance(instance_id)
        if volume.attachment:
            raise EC2ClientError("VolumeInUse", f"{volume_id} is already attached to an instance")
        if volume.availability_zone != instance.availability_zone:
            raise EC2ClientError(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
            )
        if device_path in instance.block_device_mapping:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{device_path}' for unixDevice. Attachment point {device_path} is already in use",
            )
        attachment = original_attach(self, volume_id, instance_id, device_path, delete_on_termination)
        if device_path != instance.root_device_name:
            attachment.status = "attaching"
        return attachment

    def detach_volume(self: Any, volume_id: str, instance_id: str, device_path: str) -> Any:
        attachment = self.get_volume(volume_id).attachment
        if not attachment or (instance_id and attachment.instance.id != instance_id):
            return original_detach(self, volume_id, instance_id, device_path)  # raises an error
        attachment.status = "detaching"
        return attachment

    EC2Backend.attach_volume = attach_volume
    EC2Backend.detach_volume = detach_volume
    EC2Backend.finish_detach_volume = original_detach


@correction
def detachment_can_be_forced() -> None:
    """DetachVolume with Force detaches a volume even if the machine has it mounted; moto ignores Force."""
    original = ElasticBlockStore.detach_volume

    def detach_volume(self: Any) -> Any:
        answer = original(self)
        if str(self._get_param("Force")).lower() == "true":
            self.ec2_backend.get_volume(self._get_param("VolumeId")).attachment.forced = True
        return answer

    ElasticBlockStore.detach_volume = detach_volume


@correction
def volumes_grow_after_the_answer() -> None:
    """ModifyVolume returns immediately; the machine sees the new size when the modification is `optimizing`, some
    seconds later. Until it is `completed`, another one is rejected, and a volume can have four in 24 hours (API
    reference of EC2, ModifyVolume: "you must wait for that modification to reach the completed state", "up to four
    times within a rolling 24-hour period"). It does not shrink a volume (Size: "must be greater than or equal to the
    existing size of the volume"). (moto: done immediately, without a limit, and with any size.)
    Related upstream: getmoto/moto#5399 (merged)."""
    original = EC2Backend.modify_volume

    def modify_volume(self: Any, volume_id: str, target_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        volume = self.get_volume(volume_id)
        if target_size is not None and target_size < volume.size:
            raise EC2ClientError("InvalidParameterValue", "New size cannot be smaller than existing size")
        earlier = volume.modifications
        unfinished = [found for each in earlier if (found := state.modification_state(each)) != "completed"]
        if unfinished:
            raise EC2ClientError(
                "IncorrectModificationState",
                f"Cannot modify volume {volume_id} in modification state {unfinished[-1].upper()}",
            )
        if sum(utcnow() - each.start_time < timedelta(days=1) for each in earlier) >= MODIFICATIONS_A_DAY:
            raise EC2ClientError(
                "VolumeModificationRateExceeded",
                f"You've reached the maximum modification rate per volume limit for {volume_id}.",
            )
        return original(self, volume_id, target_size, *args, **kwargs)

    EC2Backend.modify_volume = modify_volume
    progress = {"modifying": 0, "optimizing": 50, "completed": 100}
    VolumeModification.modification_state = property(state.modification_state)
    VolumeModification.progress = property(lambda modification: progress[state.modification_state(modification)])
