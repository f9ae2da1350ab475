"""What the reconcile loop reports to moto: an instance is running, a volume is attached, a target is healthy."""

import itertools
from datetime import datetime, timedelta
from typing import Any, cast

from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import InstanceState, StateReason
from moto.elbv2.models import elbv2_backends

from lab.cloud.balancers import TargetHealth
from lab.cloud.network import NUMBERS

growth_delay = timedelta(seconds=20)
"""Time until a machine sees that its volume has grown. Longer than the ten seconds after which the Terraform provider
first checks, and then checks only the volume's state."""
completion_delay = timedelta(seconds=60)
"""Time until a modification is `completed`. On AWS it is `optimizing` for minutes to hours."""
validation_delay = timedelta(seconds=10)
"""Time until a certificate is issued after its record was found in DNS. On AWS it is a minute or more."""
snapshot_delay = timedelta(seconds=8)
"""Time until a snapshot is `completed`. On AWS it is `pending` for minutes."""

PENDING, RUNNING, STOPPING, STOPPED = (0, "pending"), (16, "running"), (64, "stopping"), (80, "stopped")
SHUTTING_DOWN, TERMINATED = (32, "shutting-down"), (48, "terminated")
_FROM_INSIDE = StateReason(
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "Client.InstanceInitiatedShutdown"
)


_numbers = itertools.cycle(range(NUMBERS))


def number_of(balancer: Any) -> int:
    """Return the number of a load balancer among all, which it keeps while others come and go."""
    if not hasattr(balancer, "number"):
        balancer.number = next(_numbers)
    return int(balancer.number)


def regions() -> list[tuple[Any, Any]]:
    """Return moto's EC2 and load balancing backends of each region that has been used."""
    return [
        (backend, elbv2_backends[account][region]) for account, region, backend in list(ec2_backends.iter_backends())
    ]


def set_state(instance: Any, state: tuple[int, str]) -> None:
    """Set the instance's state to one of those above."""
    instance._state = InstanceState(state[1], state[0])


def settle_power(instance: Any) -> None:
    """Complete the instance's pending, stopping or shutting-down."""
    match instance.state:
        case "pending":
            instance.finish_start()
        case "stopping":
            reason = instance.state_reason
            instance.finish_stop()
            if reason.code == _FROM_INSIDE.code:
                instance.state_reason = reason
        case "shutting-down":
            instance.finish_terminate()


def power_off_from_inside(instance: Any) -> None:
    """Stop or terminate a machine that its own operating system has shut down, as configured at launch."""
    if instance.instance_initiated_shutdown_behavior == "terminate":
        instance.terminate()
    else:
        instance.stop()
        instance.state_reason = _FROM_INSIDE


def in_effect(modification: Any) -> bool:
    """Whether the volume's machine sees its new size."""
    return bool(utcnow() - modification.start_time >= growth_delay)


def modification_state(modification: Any) -> str:
    """Return `modifying`, `optimizing` or `completed`."""
    if not in_effect(modification):
        return "modifying"
    return "completed" if utcnow() - modification.start_time >= completion_delay else "optimizing"


def size_in_effect(volume: Any) -> int:
    """Return the size in GiB that the volume's machine sees."""
    late = [each for each in volume.modifications if each.target_size and not in_effect(each)]
    return int(late[0].original_size if late else volume.size)


def snapshot_status(snapshot: Any) -> str:
    """Return `pending` or `completed`."""
    return "completed" if completion_of(snapshot) else "pending"


def completion_of(snapshot: Any) -> datetime | None:
    """Return when the snapshot was completed; None if it is pending. Those of images always exist."""
    if snapshot.from_ami:
        return cast(datetime, snapshot.start_time)
    stored: datetime | None = getattr(snapshot, "stored", None)  # set once the data has been copied
    completed = stored + snapshot_delay if stored else None
    return completed if completed and completed <= utcnow() else None


def settle_volume(volume: Any) -> None:
    """Complete the volume's attaching or detaching."""
    attachment = volume.attachment
    if attachment and attachment.status == "attaching":
        attachment.status = "attached"
    elif attachment and attachment.status == "detaching":
        volume.ec2_backend.finish_detach_volume(volume.id, attachment.instance.id, attachment.device)


target_health: dict[tuple[str, str], TargetHealth] = {}
"""The health measured by the load balancers, by target group ARN and target id. The loop writes it."""
