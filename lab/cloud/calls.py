"""Service, action and parameters of a signed request, named as in AWS's API references."""

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from lab.cloud.faults import body, form

SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
"""Sender, region and service of a signed request (Signature Version 4). Policies use the same names of regions and
services.
"""

PREFIXES = {"tagging": "tag"}
"""The service of an action in policies, if requests are signed for another name (Service Authorization Reference)."""

PROTOCOL = ("Action", "Version")
"""Fields of a form that belong to the query protocol, not to the action."""

ROUTE_53 = (
    ("POST", r"/2013-04-01/hostedzone/(?P<Id>[^/]+)/rrset/?", "ChangeResourceRecordSets"),
    ("GET", r"/2013-04-01/hostedzone/(?P<Id>[^/]+)/rrset/?", "ListResourceRecordSets"),
    ("GET", r"/2013-04-01/hostedzone/(?P<Id>[^/]+)/?", "GetHostedZone"),
    ("GET", r"/2013-04-01/hostedzone/?", "ListHostedZones"),
    ("GET", r"/2013-04-01/tags/(?P<ResourceType>[^/]+)/(?P<ResourceId>[^/]+)/?", "ListTagsForResource"),
    ("GET", r"/2013-04-01/change/(?P<Id>[^/]+)/?", "GetChange"),
)
"""Route 53 identifies actions by method and path, which may contain parameters (Amazon Route 53 API Reference)."""


@dataclass(frozen=True)
class Parameter:
    """A value and its place in the request.

    In lists, `name` has N as every index, and `place` the index that was sent: `Tag.N.Key`, `Tag.2.Key`. Values in an
    XML body are named by their elements, without an index; those in JSON by their keys, and lists count from 1, too.
    """

    name: str
    place: str
    value: str


@dataclass(frozen=True)
class Call:
    """A signed request. An unknown action is named by its method and path."""

    service: str
    action: str
    parameters: tuple[Parameter, ...]
    region: str = ""
    access_key: str = ""

    @property
    def permission(self) -> str:
        """The action as named in policies, for example `ec2:RunInstances`."""
        return f"{PREFIXES.get(self.service, self.service)}:{self.action}"

    def value(self, place: str) -> str | None:
        """Return the value at that place; None if it was not sent."""
        return next((each.value for each in self.parameters if each.place == place), None)

    def beside(self, parameter: Parameter, name: str) -> str | None:
        """Return the value of that name in the same structure as `parameter`; None if it was not sent."""
        inside, dot, _ = parameter.place.rpartition(".")
        return self.value(f"{inside}{dot}{name}")


def read(environ: dict[str, Any]) -> Call | None:
    """Return the call in a request, whose body stays readable; None for a request that names no service."""
    scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if scope is None:
        return None
    action, sent = _asked(environ)
    return Call(scope["service"], action, _parameters(sent), scope["region"], scope["key"])


def _asked(environ: dict[str, Any]) -> tuple[str, Iterable[tuple[str, str]]]:
    fields = form(environ)
    if "Action" in fields:
        return fields["Action"], [(place, value) for place, value in fields.items() if place not in PROTOCOL]
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        # JSON 1.1, for example of ACM: `CertificateManager.RequestCertificate`.
        return target.rpartition(".")[2], list(_of_json(json.loads(body(environ) or b"{}"), ""))
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    for known_method, pattern, name in ROUTE_53:
        if method == known_method and (found := re.fullmatch(pattern, path)):
            return name, [*found.groupdict().items(), *_of_rest(environ)]
    return f"{method} {path}", ()


def _parameters(sent: Iterable[tuple[str, str]]) -> tuple[Parameter, ...]:
    return tuple(Parameter(re.sub(r"\.\d+(?=\.|$)", ".N", place), place, value) for place, value in sent)


def _of_rest(environ: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from urllib.parse.parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if document := body(environ):
        yield from _leaves(ElementTree.fromstring(document), "")


def _of_json(value: Any, above: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _of_json(inner, f"{above}.{key}")
        case list():
            for index, inner in enumerate(value, start=1):
                yield from _of_json(inner, f"{above}.{index}")
        case bool():
            yield above.removeprefix("."), str(value).lower()
        case _:
            yield above.removeprefix("."), str(value)


def _leaves(element: ElementTree.Element, above: str) -> Iterator[tuple[str, str]]:
    if not len(element):
        yield above.removeprefix("."), element.text or ""
    for child in element:
        yield from _leaves(child, f"{above}.{child.tag.rpartition('}')[2]}")
