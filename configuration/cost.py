"""Estimates the monthly cost of a stack from AWS's list prices in prices.yaml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import yaml

from configuration.flows import MACHINES, Place
from settings import MachineSettings, Settings

PRICES: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text())

HOURS = 730
"""Hours per month, as in AWS's own calculator."""

FREE_TRAFFIC = 100
"""GB per month to the internet that AWS does not charge for."""

TRAFFIC_TO_CLIENTS = 200
"""GB per month to clients. An assumption: about forty users who clone and pull images."""

TRAFFIC_OF_JOBS = 200
"""GB per month between jobs and load balancer, also an assumption. It uses public addresses, for which AWS charges in
each direction; one capacity unit of the load balancer covers 730 GB per month.
"""

SNAPSHOTS = 100
"""GB of all backups, an assumption: 60 GB of data, of which 2.5 GB change every day. A snapshot is charged for the
blocks that differ from the one before it.
"""

LARGE_MACHINE = 12
"""Number of vCPUs up to which Red Hat charges the higher fee per vCPU."""

NOT_PRICED = "not priced"


@dataclass(frozen=True)
class CostLine:
    """The monthly cost of one item in US dollars; None if prices.yaml has no price for it."""

    item: str
    monthly: Decimal | None


def cost(settings: Settings) -> tuple[CostLine, ...]:
    """The items of a stack that runs all month, with their costs."""
    return tuple(_lines(settings, PRICES["regions"].get(settings.region, {})))


def snapshots(region: str) -> CostLine:
    """The backups of a stack, whether it still exists or not."""
    price = PRICES["regions"].get(region, {}).get("snapshotGbMonth")
    return CostLine(f"snapshots of the data volumes, if {SNAPSHOTS} GB", _times(price, SNAPSHOTS))


def total(lines: Sequence[CostLine]) -> Decimal:
    """The sum of the items that have a price, in US dollars."""
    return sum((line.monthly for line in lines if line.monthly is not None), Decimal())


def cost_table(lines: Sequence[CostLine]) -> str:
    """The items and their total as a Markdown table, which also shows which prices are missing."""
    rows = [(line.item, dollars(line.monthly)) for line in lines]
    missing = [line for line in lines if line.monthly is None]
    amount = dollars(total(lines)) + (" plus items that are not priced" if missing else "")
    rows.append(("**total**", f"**{NOT_PRICED if len(missing) == len(lines) else amount}**"))
    return "\n".join(["| item | a month |", "|---|---|", *(f"| {item} | {cell} |" for item, cell in rows)])


def dollars(amount: Decimal | None) -> str:
    """The amount to the cent, or NOT_PRICED."""
    return NOT_PRICED if amount is None else f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"


def running(machines: Mapping[Place, MachineSettings], region: str) -> tuple[CostLine, ...]:
    """The items of a stack that are charged for by the time it exists, with their costs for a month."""
    prices = PRICES["regions"].get(region, {})
    return (*_machine_lines(machines, prices), *_network_lines(prices))


def _lines(settings: Settings, region: Mapping[str, Any]) -> Iterator[CostLine]:
    machines: Mapping[Place, MachineSettings] = {
        Place.SERVER: settings.server,
        Place.REGISTRY: settings.registry,
        Place.RUNNER: settings.runner,
    }
    yield from _machine_lines(machines, region)
    if settings.backup:
        yield snapshots(settings.region)
    balancer, public_addresses = _network_lines(region)
    yield balancer
    if settings.serves_tls:
        # Requested and imported ones are free (AWS Certificate Manager, pricing).
        yield CostLine("certificate for TLS", Decimal())
    yield public_addresses

    charged = TRAFFIC_TO_CLIENTS - FREE_TRAFFIC
    yield CostLine(f"traffic to clients, if {TRAFFIC_TO_CLIENTS} GB", _times(region.get("trafficOutGb"), charged))
    between = region.get("trafficBetweenPublicAddressesGb")
    yield CostLine(f"traffic of jobs, if {TRAFFIC_OF_JOBS} GB", _times(between, 2 * TRAFFIC_OF_JOBS))


def _machine_lines(machines: Mapping[Place, MachineSettings], region: Mapping[str, Any]) -> Iterator[CostLine]:
    hourly = region.get("instanceHour", {})
    for place, machine in machines.items():
        name = machine.instance_type
        yield CostLine(f"{place}, {name}", _times(hourly.get(name), HOURS))

    types = [machine.instance_type for machine in machines.values()]
    vcpus: list[int] = [count for name in types if (count := PRICES["vcpus"].get(name))]
    if len(vcpus) == len(types):
        fee = sum((count * _red_hat_hour(count) for count in vcpus), Decimal()) * HOURS
        yield CostLine(f"Red Hat Enterprise Linux, {sum(vcpus)} vCPU", fee)
    else:
        yield CostLine("Red Hat Enterprise Linux", None)

    size = sum(machine.root_volume_size + (machine.data_volume_size or 0) for machine in machines.values())
    yield CostLine(f"gp3 volumes, {size} GiB", _times(region.get("gp3GibMonth"), size))


def _network_lines(region: Mapping[str, Any]) -> tuple[CostLine, CostLine]:
    """The load balancer and the public addresses."""
    hour, unit = region.get("loadBalancerHour"), region.get("loadBalancerUnitHour")
    both = None if hour is None or unit is None else _decimal(hour) + _decimal(unit)
    addresses = len(MACHINES) + 1
    return (
        CostLine("network load balancer, one capacity unit", _times(both, HOURS)),
        CostLine(f"{addresses} public IPv4 addresses", _times(PRICES["publicAddressHour"], HOURS * addresses)),
    )


def _red_hat_hour(vcpus: int) -> Decimal:
    return _decimal(PRICES["redHatVcpuHour" if vcpus <= LARGE_MACHINE else "redHatVcpuHourOfLargeMachines"])


def _times(price: float | Decimal | None, amount: int) -> Decimal | None:
    return None if price is None else _decimal(price) * amount


def _decimal(price: float | Decimal) -> Decimal:
    """The price exactly as written, not as a binary fraction."""
    return Decimal(str(price))
