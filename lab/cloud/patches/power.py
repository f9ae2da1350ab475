"""The power of instances: start, stop, reboot, terminate."""

from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance, InstanceState

from lab.cloud.patches import state
from lab.cloud.patches.correction import correction


@correction
def termination_keeps_what_was_given() -> None:
    """Termination deletes the root volume and the interface created with the instance; an existing interface that it
    was launched with, and every volume attached later, is detached and kept. Related upstream: getmoto/moto#7954
    (merged)."""
    original = Instance.terminate

    def release_interfaces(instance: Any) -> None:
        for interface in list(instance.nics.values()):
            interface.stop()
            instance.detach_eni(interface)
            if interface.delete_on_termination:
                instance.ec2_backend.delete_network_interface(interface.id)

    def release_volumes(instance: Any) -> None:
        for device, block in list(instance.block_device_mapping.items()):
            instance.ec2_backend.finish_detach_volume(block.volume_id, instance.id, device)
            if block.delete_on_termination:
                instance.ec2_backend.delete_volume(block.volume_id)

    def terminate(instance: Any) -> Any:
        release_interfaces(instance)
        return original(instance)

    Instance.terminate = terminate
    Instance.teardown_defaults = release_volumes


@correction
def power_takes_time() -> None:
    """Start, stop and terminate return immediately; the instance is then pending, stopping or shutting-down until the
    loop reports completion (`settle_power`). Only a running instance can be rebooted. Upstream: getmoto/moto#380
    (closed), getmoto/moto#62 (closed)."""

    def refuse(instance: Any) -> None:
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be changed: {instance.state}",
        )

    def change(allowed: dict[str, tuple[int, str]]) -> Callable[[Any], Any]:
        def method(instance: Any) -> Any:
            previous = InstanceState(instance.state, instance.state_code)
            if instance.state not in allowed:
                refuse(instance)
            state.set_state(instance, allowed[instance.state])
            return previous

        return method

    def reboot(instance: Any) -> None:
        if instance.state != "running":
            refuse(instance)
        instance.reboots += 1

    Instance.finish_start, Instance.finish_stop = Instance.start, Instance.stop
    Instance.finish_terminate = Instance.terminate
    Instance.start = change({"stopped": state.PENDING, "pending": state.PENDING, "running": state.RUNNING})
    Instance.stop = change(
        {"pending": state.STOPPING, "running": state.STOPPING, "stopping": state.STOPPING, "stopped": state.STOPPED}
    )
    Instance.terminate = change(
        dict.fromkeys(("pending", "running", "stopping", "stopped", "shutting-down"), state.SHUTTING_DOWN)
        | {"terminated": state.TERMINATED}
    )
    Instance.reboot = reboot
