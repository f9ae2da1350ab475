"""A new stack adopts the resources that remain when a protected stack is destroyed."""

import dataclasses

import pytest

from lab import stack
from tests.e2e import kept
from tests.e2e.operations import Operation, client, instances, repair, up

pytestmark = pytest.mark.long


def tag(resource) -> str:
    return next(tag["Value"] for tag in resource["Tags"] if tag["Key"] == "Name")


@pytest.mark.fault(
    "a stack with deletion protection is destroyed",
    sees="`pulumi destroy` fails; with `--exclude-protected` both data volumes and the load balancer's "
    "address are kept",
    heals="a new stack that adopts them: `serverDataVolumeId`, `registryDataVolumeId`, `balancerAddressId`",
)
@pytest.mark.usefixtures("outputs")
def test_the_volumes_and_the_address_of_a_destroyed_stack_are_taken_over_by_a_new_one(measured):
    image = kept.push("left-behind")
    before = kept.holdings()
    stack.configure("deletionProtection", "true")
    repair()
    refused = Operation("destroy", "--yes", "--skip-preview").finish()
    assert refused.status != 0
    assert "protected" in refused.output
    destroyed = Operation("destroy", "--yes", "--skip-preview", "--exclude-protected").finish()
    assert destroyed.status == 0, destroyed.output
    ec2 = client("ec2")
    assert instances() == []
    assert [vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]] == []
    volumes = {tag(volume): volume for volume in ec2.describe_volumes()["Volumes"]}
    [address] = ec2.describe_addresses()["Addresses"]
    assert set(volumes) == {f"server-data-{stack.STACK}", f"registry-data-{stack.STACK}"}

    stack.forget()
    for role in ("server", "registry"):
        volume = volumes[f"{role}-data-{stack.STACK}"]
        stack.configure(f"{role}DataVolumeId", volume["VolumeId"])
        stack.configure(f"{role}DataVolumeSize", str(volume["Size"]))
    stack.configure("balancerAddressId", address["AllocationId"])
    done = up()
    assert done.status == 0, done.output
    measured(done.seconds)

    after = kept.holdings()
    assert after.addresses["externalUrl"] == before.addresses["externalUrl"]
    assert dataclasses.replace(after, addresses=before.addresses) == before
    kept.pull(image)
