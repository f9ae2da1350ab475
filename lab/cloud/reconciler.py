"""The reconcile loop: about three times a second, it brings this machine in line with the API."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lab.cloud import (
    balancers,
    host_network,
    inventory,
    machines,
    metadata,
    names,
    packet_filter,
    shown_certificates,
    volumes,
)
from lab.cloud.balancers import INITIAL, NOT_IN_USE, Balancer, Balancers
from lab.cloud.host_network import Host
from lab.cloud.inventory import Inventory
from lab.cloud.machines import Machine, Machines
from lab.cloud.names import Names
from lab.cloud.network import Network, Rule
from lab.cloud.patches import state
from lab.cloud.tasks import Tasks
from lab.cloud.volumes import LoopDevices

INTERVAL = 0.3  # seconds

log = logging.getLogger(__name__)


class Notes:
    """Logs a message about an object once, until the message changes."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __call__(self, key: str, text: str) -> None:
        if self._last.get(key, "") != text:
            self._last[key] = text
            if text:
                log.warning("%s: %s", key, text)


class Reconciler:
    """Owns everything that is created on this machine. With `api_only` nothing is created: requests count as done.

    `image` returns the tag of the image from which new machines are created.
    """

    def __init__(self, image: Callable[[], str], *, api_only: bool) -> None:
        self._api_only = api_only
        if api_only:
            state.growth_delay = state.completion_delay = timedelta()
            state.validation_delay = state.snapshot_delay = timedelta()
        self._inventory = Inventory()
        self._note = Notes()
        self._tasks = Tasks(self._note)
        self._host = Host()
        self._names = Names()
        self._devices = LoopDevices()
        self._machines = Machines(image, self._devices, _settle_power, _power_off, _settle_volume)
        self._balancers = Balancers(_activate, self._note)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Reconcile until `stop` is called, then remove everything."""
        if not self._api_only:
            remove_everything()
            for chain in packet_filter.foreign_filters():
                log.warning("packets between machines may be lost: the chain %s of this host drops them", chain)
            self._host.apply(Network())
            metadata.Server(self._facts).start()
        while not self._stopping.wait(INTERVAL):
            try:
                self._step()
            except Exception as error:  # noqa: BLE001, moto's memory may change while it is read
                self._note("cloud", f"{type(error).__name__}: {error}")
            else:
                self._note("cloud", "")
        self._tasks.close(wait=False)
        if not self._api_only:
            # Removing the machines ends tasks that wait for something in them.
            machines.remove()
            self._tasks.close(wait=True)
            remove_everything()

    def _facts(self, address: str) -> metadata.Facts | None:
        return self._inventory.facts.get(address)

    def stop(self) -> None:
        """End `run`. Safe in a signal handler."""
        self._stopping.set()

    def _step(self) -> None:
        self._inventory = found = inventory.read()
        if self._api_only:
            _settle_everything(found)
            return
        self._note("not modelled by the lab", "; ".join(found.not_modelled))
        self._host.apply(found.network)
        self._names.apply(found.names, sorted({i.resolver for i in found.network.interfaces}))
        for machine in found.machines:
            self._tasks.submit(machine.id, self._machines.reconcile, machine)
        for balancer in found.balancers:
            self._tasks.submit(_key(balancer.name), self._balance, balancer)
        for name in self._balancers.names() - {balancer.name for balancer in found.balancers}:
            self._tasks.submit(_key(name), self._balancers.remove, name)
        roots = {machine.root.id for machine in found.machines if machine.root}
        self._tasks.submit("volumes", self._devices.forget_all_but, {volume.id for volume in found.volumes} | roots)
        state.target_health.update(dict.fromkeys(found.idle_targets, NOT_IN_USE))

    def _balance(self, balancer: Balancer) -> None:
        state.target_health.update(self._balancers.reconcile(balancer))

    def status(self) -> dict[str, Any]:
        """Return what `lab status` shows, ready for JSON."""
        found = self._inventory
        return {
            "api": {"only": self._api_only},
            "machines": [self._machine_status(machine) for machine in found.machines],
            "balancers": [self._balancer_status(balancer) for balancer in found.balancers],
            "flows": [_flow(rule, found) for rule in found.network.rules if _in_use(rule, found)],
            "rejected": [] if self._api_only else packet_filter.rejected(),
            "volumes": [dataclasses.asdict(volume) for volume in found.volumes],
        }

    def _machine_status(self, machine: Machine) -> dict[str, Any]:
        interface = machine.interface
        return {
            "instance_id": machine.id,
            "name": machine.name,
            "private_ip": interface.address if interface else None,
            "public_ip": interface.elastic if interface else None,
            "state": machine.state,
            "container": machine.container,
            "cloud_init": self._machines.cloud_init(machine.id),
            "error": self._tasks.error(machine.id),
        }

    def _balancer_status(self, balancer: Balancer) -> dict[str, Any]:
        targets = []
        for listener in balancer.listeners:
            for target in listener.group.targets if listener.group else ():
                assert listener.group
                health = state.target_health.get((listener.group.arn, target.id), INITIAL)
                targets.append(
                    {
                        "port": listener.port,
                        "instance_id": target.id,
                        "health": health.state,
                        "reason": health.description,
                        "certificate": shown_certificates.facts(listener.pem) if listener.pem else None,
                    }
                )
        return {
            "name": balancer.name,
            "address": balancer.interface.elastic or balancer.interface.address,
            "targets": targets,
            "error": self._tasks.error(_key(balancer.name)) or "; ".join(balancer.not_modelled()) or None,
        }


def _key(balancer_name: str) -> str:
    return f"load balancer {balancer_name}"


def _in_use(rule: Rule, found: Inventory) -> bool:
    return any(rule.group in (interface.groups or ()) for interface in found.network.interfaces)


def _flow(rule: Rule, found: Inventory) -> dict[str, Any]:
    group = found.group_names.get(rule.group, rule.group)
    peer = found.group_names.get(rule.peer, rule.peer)
    return {
        "direction": "out" if rule.egress else "in",
        "from": group if rule.egress else peer,
        "to": peer if rule.egress else group,
        "protocol": "all" if rule.protocol == "-1" else rule.protocol,
        "first_port": rule.first_port,
        "last_port": rule.last_port,
        "why": rule.description,
    }


def _settle_everything(found: Inventory) -> None:
    for machine in found.machines:
        _settle_power(machine.id)
    for volume in found.volumes:
        _settle_volume(volume.id)
    for balancer in found.balancers:
        _activate(balancer.name)


def _settle_power(instance_id: str) -> None:
    state.settle_power(inventory.find_instance(instance_id))


def _power_off(instance_id: str) -> None:
    state.power_off_from_inside(inventory.find_instance(instance_id))


def _settle_volume(volume_id: str) -> None:
    state.settle_volume(inventory.find_volume(volume_id))


def _activate(name: str) -> None:
    for balancer in inventory.find_balancers(name):
        balancer.state = "active"


def remove_everything() -> None:
    """Remove everything that the cloud has created on this host, in any process. Idempotent.

    Names and labels identify it: containers, name server and load balancers, loop devices on files in `.lab/volumes`
    with those files, network namespaces, interfaces, packet filter.
    """
    machines.remove()
    balancers.remove()
    names.remove()
    volumes.remove()
    host_network.remove()
