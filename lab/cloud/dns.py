"""The public DNS of the lab's internet: the records of Route 53's public zones, and those planted for a domain that has
no zone there.

The machines' resolver (names.py) and the validation of certificates see these records, and no others. `/_lab/dns` of
the API controls the planted ones (controls.py); `plant` and `clear` are the client of that route. They do what the
owner of a domain does at another provider of DNS.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moto.route53.models import route53_backends

from lab.cloud import API, controls

ROUTE = "/_lab/dns"
PLANTED_TYPES = ("A", "CNAME")
ALIAS = "ALIAS"
"""The type given here to Route 53's alias records, which answer queries for A."""


@dataclass(frozen=True)
class Record:
    """One value of a record. Names, also as a value, have no final dot and no capitals."""

    name: str
    type: str
    value: str


class Planted:
    """The planted records, in the process of the cloud."""

    def __init__(self) -> None:
        self.records: tuple[Record, ...] = ()

    def add(self, *, name: str, type: str, value: str) -> None:  # noqa: A002, DNS calls it so
        """Plant a record. Raises ValueError for a type other than A and CNAME."""
        if type not in PLANTED_TYPES:
            raise ValueError(f"the type of a planted record is {' or '.join(PLANTED_TYPES)}, not {type!r}")
        self.records += (Record(_plain(name), type, _plain(value)),)

    def clear(self) -> None:
        self.records = ()

    def status(self) -> list[dict[str, Any]]:
        return [asdict(record) for record in self.records]


PLANTED = Planted()


def lookup(name: str, type: str) -> list[str]:  # noqa: A002, DNS calls it so
    """Return the values of the records of exactly this name and type; a CNAME's without its final dot."""
    return [record.value for record in _records() if (record.name, record.type) == (_plain(name), type)]


def addresses(known: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the addresses of every name that has some, with CNAME and alias records followed.

    `known` are the addresses of AWS's own names, such as a load balancer's.
    """
    own: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    elsewhere: dict[str, str] = {}
    for record in _records():
        if record.type == "A":
            own[record.name] += (record.value,)
        elif record.type in ("CNAME", ALIAS):
            elsewhere[record.name] = record.value
    found = {_plain(name): values for name, values in known.items()} | own
    for name in elsewhere:
        target, passed = name, set[str]()
        while target in elsewhere and target not in passed:
            passed.add(target)
            target = elsewhere[target]
        if target in found:
            own[name] = found[target]
    return dict(own)


def _records() -> Iterator[Record]:
    for _, _, backend in list(route53_backends.iter_backends()):
        for zone in list(backend.zones.values()):
            if not zone.private_zone:
                for record in list(zone.rrsets):
                    yield from _values(record)
    yield from PLANTED.records


def _values(record: Any) -> Iterator[Record]:
    if record.alias_target:
        yield Record(_plain(record.name), ALIAS, _plain(record.alias_target["DNSName"]))
    for value in record.records or []:
        text = value["Value"] if isinstance(value, dict) else str(value)
        yield Record(_plain(record.name), record.type, _plain(text) if record.type == "CNAME" else text)


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


# --- the client ------------------------------------------------------------------------------------------


def plant(name: str, type: str, value: str, *, api: str = API) -> None:  # noqa: A002, DNS calls it so
    """Plant a record in the running lab. Raises OSError without one, and for a type other than A and CNAME."""
    controls.ask("POST", ROUTE, {"name": name, "type": type, "value": value}, api)


def clear(*, api: str = API) -> None:
    """Remove all planted records."""
    controls.ask("DELETE", ROUTE, None, api)
