"""The setting `extraEgress`: egress rules of the machines in addition to those that the program needs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from validation import values
from validation.reader import Reader

KEY = "extraEgress"
PLACES = ("server", "registry", "runner")
"""Machines that can have such a rule; configuration/flows.py defines all places of the stack."""

PROTOCOLS = ("tcp", "udp")
FIELDS = ("place", "protocol", "port", "ports", "networks", "why")

LONGEST_WHY = 200
"""Characters. AWS allows 255 in a rule's description (EC2 API Reference, IpRange), which also contains the target."""


@dataclass(frozen=True, kw_only=True)
class ExtraEgress:
    """Ports and IPv4 networks that the machine `place` may connect to; `protocol` is `tcp` or `udp`."""

    place: str
    protocol: str
    ports: tuple[int, ...]
    networks: tuple[str, ...]
    why: str


def load(keys: Reader) -> tuple[ExtraEgress, ...]:
    """The entries of the setting; empty if it is not set. Problems are added to `keys.problems`."""
    loaded = []
    for position, item in enumerate(keys.items(KEY)):
        known = len(keys.problems)
        _check(keys, f"{KEY}[{position}]", item)
        if len(keys.problems) == known:
            loaded.append(_entry(cast("Mapping[str, object]", item)))
    return tuple(loaded)


def problems_between_entries(entries: tuple[ExtraEgress, ...]) -> list[str]:
    """Combinations that two entries contain: AWS rejects duplicate rules of a security group."""
    seen: dict[tuple[str, str, int, str], int] = {}
    problems = []
    for position, entry in enumerate(entries):
        for port in entry.ports:
            for network in entry.networks:
                before = seen.setdefault((entry.place, entry.protocol, port, network), position)
                if before != position:
                    problems.append(
                        f"{KEY}[{position}]: {entry.protocol} {port} from the {entry.place} to {network} is in "
                        f"{KEY}[{before}] as well. List each combination once."
                    )
    return problems


def _entry(item: Mapping[str, object]) -> ExtraEgress:
    given = item["ports"] if "ports" in item else [item["port"]]
    return ExtraEgress(
        place=str(item["place"]),
        protocol=str(item.get("protocol", PROTOCOLS[0])),
        ports=tuple(port(each) for each in cast("list[object]", given)),
        networks=tuple(values.cidr(network) for network in cast("list[str]", item["networks"])),
        why=why(item["why"]),
    )


def _check(keys: Reader, name: str, item: object) -> None:
    if not isinstance(item, dict):
        keys.refuse(name, item, "is not a map. Set place, protocol, port or ports, networks and why")
        return
    for field in item:
        if field not in FIELDS:
            keys.refuse(name, field, f"is not one of {', '.join(FIELDS)}")
    for field in ("place", "networks", "why"):
        if item.get(field) is None:
            keys.problems.append(f"{name}.{field}: missing.")
    for field, allowed in (("place", PLACES), ("protocol", PROTOCOLS)):
        if item.get(field) is not None and item[field] not in allowed:
            keys.refuse(f"{name}.{field}", item[field], f"is not one of {', '.join(allowed)}")
    _check_ports(keys, name, item)
    _check_each(keys, f"{name}.networks", item.get("networks"), _network)
    if item.get("why") is not None:
        _check_one(keys, f"{name}.why", item["why"], why)


def _check_ports(keys: Reader, name: str, item: Mapping[str, object]) -> None:
    if ("port" in item) == ("ports" in item):
        has = "both port and ports" if "port" in item else "no port"
        keys.problems.append(f"{name}: has {has}. Set either port, or ports as a list.")
    elif "ports" in item:
        _check_each(keys, f"{name}.ports", item["ports"], port)
    else:
        _check_one(keys, f"{name}.port", item["port"], port)


def _check_each(keys: Reader, name: str, given: object, check: Callable[[object], object]) -> None:
    """Report problems of a list; None has already been reported as missing."""
    if given is None:
        return
    if not isinstance(given, list) or not given:
        keys.refuse(name, given, "is not a list with at least one item")
        return
    seen = []
    for each in given:
        checked = _check_one(keys, name, each, check)
        if checked is not None and checked in seen:
            keys.refuse(name, checked, "is listed twice. List it once")
        seen.append(checked)


def _check_one(keys: Reader, name: str, given: object, check: Callable[[object], object]) -> object:
    try:
        return check(given)
    except ValueError as problem:
        keys.refuse(name, given, str(problem))
        return None


def port(given: object) -> int:
    """A TCP or UDP port, as a number or a string of digits. Raises ValueError for anything else."""
    if type(given) is int and 1 <= given <= 65535:
        return given
    if isinstance(given, str) and re.fullmatch(r"[1-9][0-9]{0,4}", given) and int(given) <= 65535:
        return int(given)
    raise ValueError("is not a port from 1 to 65535; for several, set a list: ports: [389, 636]")


def _network(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError("is not an IPv4 network such as 198.51.100.0/24")
    return values.cidr(given)


def why(given: object) -> str:
    """The reason for a rule, if AWS accepts it as a description. Raises ValueError for anything else."""
    if not isinstance(given, str) or not re.fullmatch(
        rf"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{{}}!$*]{{1,{LONGEST_WHY}}}", given
    ):
        raise ValueError(
            f"is not a description that AWS accepts: 1 to {LONGEST_WHY} unaccented letters, digits, spaces and "
            "._-:/()#,@[]+=&;{}!$*"
        )
    if given != given.strip():
        raise ValueError("starts or ends with whitespace")
    return given
