from datetime import timedelta

from lab.cloud import inventory
from lab.cloud.patches import state
from lab.tests.cloud import refused, settle


def test_a_volume_is_larger_for_its_machine_some_seconds_after_the_answer(cloud, monkeypatch):
    monkeypatch.setattr(state, "growth_delay", timedelta(seconds=20))
    monkeypatch.setattr(state, "completion_delay", timedelta(seconds=60))
    volume = cloud.volume()

    def modify(size):
        return cloud.ec2.modify_volume(VolumeId=volume, Size=size)["VolumeModification"]["ModificationState"]

    def seen():
        return state.size_in_effect(inventory.find_volume(volume))

    assert modify(2) == "modifying"
    assert seen() == 1
    refused("IncorrectModificationState", cloud.ec2.modify_volume, VolumeId=volume, Size=3)
    monkeypatch.setattr(state, "growth_delay", timedelta())
    (modification,) = cloud.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    assert (modification["ModificationState"], modification["Progress"]) == ("optimizing", 50)
    assert seen() == 2
    refused("IncorrectModificationState", cloud.ec2.modify_volume, VolumeId=volume, Size=3)
    monkeypatch.setattr(state, "completion_delay", timedelta())
    (modification,) = cloud.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    assert (modification["ModificationState"], modification["Progress"]) == ("completed", 100)
    assert [modify(size) for size in (3, 4, 5)] == ["completed"] * 3
    assert seen() == 5
    refused("VolumeModificationRateExceeded", cloud.ec2.modify_volume, VolumeId=volume, Size=6)


def test_a_volume_has_one_machine(cloud):
    first, second, volume = cloud.run(), cloud.run(), cloud.volume()
    settle()
    attached = cloud.ec2.attach_volume(VolumeId=volume, InstanceId=first, Device="/dev/sdf")
    assert attached["State"] == "attaching"
    settle()
    attach = cloud.ec2.attach_volume
    refused("VolumeInUse", attach, VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    refused("InvalidParameterValue", attach, VolumeId=cloud.volume(), InstanceId=first, Device="/dev/sdf")
    cloud.ec2.detach_volume(VolumeId=volume, InstanceId=first)
    refused("VolumeInUse", attach, VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    settle()
    attach(VolumeId=volume, InstanceId=second, Device="/dev/sdf")


def test_a_detachment_can_be_forced(cloud):
    instance, volume = cloud.run(), cloud.volume()
    settle()
    for force in (False, True):
        cloud.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        settle()
        cloud.ec2.detach_volume(VolumeId=volume, Force=force)
        (found,) = (v for v in inventory.read().volumes if v.id == volume)
        assert (found.status, found.forced) == ("detaching", force)
        settle()
