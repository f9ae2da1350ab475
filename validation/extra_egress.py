"""The setting `extraEgress`: ways out of the machines beyond those that the program needs."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from validation import values
from validation.reader import Reader

KEY = "extraEgress"
PLACES = ("server", "registry", "runner")
"""Machines that a way can start at; configuration/flows.py has the places of the stack."""

PROTOCOLS = ("tcp", "udp")
FIELDS = ("place", "protocol", "port", "ports", "networks", "why")

LONGEST_WHY = 200
"""Characters. AWS takes 255 in the description of a rule (EC2 API Reference, IpRange), which says where to as well."""


@dataclass(frozen=True, kw_only=True)
class ExtraEgress:
    """What the machine `place` may connect to, by `tcp` or `udp`: these ports of these IPv4 networks; and why."""

    place: str
    protocol: str
    ports: tuple[int, ...]
    networks: tuple[str, ...]
    why: str


def load(keys: Reader) -> tuple[ExtraEgress, ...]:
    """The ways out that the settings name, none when they name none. What is wrong goes to `keys.problems`."""
    made = []
    for position, item in enumerate(keys.items(KEY)):
        name = f"{KEY}[{position}]"
        problems = list(_problems(item, name))
        keys.problems += problems
        if not problems:
            made.append(_way(cast("Mapping[str, object]", item)))
    return tuple(made)


def problems_between_ways(ways: tuple[ExtraEgress, ...]) -> list[str]:
    """AWS refuses a rule that a security group has already: each that two ways would make, once."""
    seen: dict[tuple[str, str, int, str], int] = {}
    problems = []
    for position, way in enumerate(ways):
        for port in way.ports:
            for network in way.networks:
                before = seen.setdefault((way.place, way.protocol, port, network), position)
                if before != position:
                    problems.append(
                        f"{KEY}[{position}]: {way.protocol} {port} from the {way.place} to {network} is in "
                        f"{KEY}[{before}] as well. Name each way once."
                    )
    return problems


def _way(item: Mapping[str, object]) -> ExtraEgress:
    given = item["ports"] if "ports" in item else [item["port"]]
    return ExtraEgress(
        place=str(item["place"]),
        protocol=str(item.get("protocol", PROTOCOLS[0])),
        ports=tuple(port(each) for each in cast("list[object]", given)),
        networks=tuple(values.cidr(network) for network in cast("list[str]", item["networks"])),
        why=why(item["why"]),
    )


def _problems(item: object, name: str) -> Iterator[str]:
    if not isinstance(item, dict):
        yield f"{name}: not a map. Give place, protocol, port or ports, networks and why."
        return
    for field in item:
        if field not in FIELDS:
            yield f"{name}: has {_shown(field)}, which is none of {', '.join(FIELDS)}."
    for field in ("place", "networks", "why"):
        if item.get(field) is None:
            yield f"{name}.{field}: missing."
    for field, allowed in (("place", PLACES), ("protocol", PROTOCOLS)):
        if item.get(field) is not None and item[field] not in allowed:
            yield f"{name}.{field}: {_shown(item[field])} is none of {', '.join(allowed)}."
    yield from _port_problems(item, name)
    yield from _each(item.get("networks"), f"{name}.networks", _network)
    if item.get("why") is not None:
        try:
            why(item["why"])
        except ValueError as problem:
            yield f"{name}.why: {_shown(item['why'])} {problem}."


def _port_problems(item: Mapping[str, object], name: str) -> Iterator[str]:
    if ("port" in item) == ("ports" in item):
        yield f"{name}: has {'port and ports' if 'port' in item else 'no port'}. Give port, or ports as a list."
    elif "ports" in item:
        yield from _each(item["ports"], f"{name}.ports", port)
    else:
        yield from _each([item["port"]], f"{name}.port", port)


def _each(given: object, name: str, check: Callable[[object], object]) -> Iterator[str]:
    """What is wrong with a list; None, which has been told already, is none."""
    if given is None:
        return
    if not isinstance(given, list) or not given:
        yield f"{name}: {_shown(given)} is not a list with at least one item."
        return
    seen = []
    for each in given:
        try:
            checked = check(each)
        except ValueError as problem:
            yield f"{name}: {_shown(each)} {problem}."
            continue
        if checked in seen:
            yield f"{name}: has {checked} twice. Name it once."
        seen.append(checked)


def port(given: object) -> int:
    """A number of TCP's or UDP's, or its text. Raises ValueError for anything else."""
    if type(given) is int and 1 <= given <= 65535:
        return given
    if isinstance(given, str) and re.fullmatch(r"[1-9][0-9]{0,4}", given) and int(given) <= 65535:
        return int(given)
    raise ValueError("is not a port from 1 to 65535; several are a list: ports: [389, 636]")


def _network(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError("is not an IPv4 network such as 198.51.100.0/24")
    return values.cidr(given)


def why(given: object) -> str:
    """Why a way is there, as AWS takes it. Raises ValueError for anything else."""
    if not isinstance(given, str) or not re.fullmatch(
        rf"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{{}}!$*]{{1,{LONGEST_WHY}}}", given
    ):
        raise ValueError(
            f"is not what AWS takes as a description: 1 to {LONGEST_WHY} unaccented letters, digits, blanks and "
            "._-:/()#,@[]+=&;{}!$*"
        )
    if given != given.strip():
        raise ValueError("begins or ends with a blank")
    return given


def _shown(value: object) -> str:
    """A value in a message: short, and never a key that was put into the wrong place."""
    shown = repr(value)
    if "PRIVATE KEY" in shown:
        return "(hidden)"
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
