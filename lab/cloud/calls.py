"""What a signed request asks of AWS: service, action and parameters, as AWS's API references name them."""

import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from lab.cloud.faults import body, form

SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
"""Where a signed request says who sends it, and names region and service (Signature Version 4); policies name these
the same.
"""

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
"""Route 53 names its actions by method and path, in which there may be a parameter (Amazon Route 53 API Reference)."""


@dataclass(frozen=True)
class Parameter:
    """A value and its place in the request.

    Of lists, `name` has every index as N, and `place` has it as it came: `Tag.N.Key`, `Tag.2.Key`. What lies in the XML
    of a body is named by its elements, which do not count.
    """

    name: str
    place: str
    value: str


@dataclass(frozen=True)
class Call:
    """A signed request. An action that is not known has the name of its method and path."""

    service: str
    action: str
    parameters: tuple[Parameter, ...]
    region: str = ""
    access_key: str = ""

    @property
    def permission(self) -> str:
        """The action as a policy names it, `ec2:RunInstances`."""
        return f"{self.service}:{self.action}"

    def value(self, place: str) -> str | None:
        """What was sent in that place; None if nothing was."""
        return next((each.value for each in self.parameters if each.place == place), None)

    def beside(self, parameter: Parameter, name: str) -> str | None:
        """What was sent under that name in the same structure as `parameter`."""
        inside, dot, _ = parameter.place.rpartition(".")
        return self.value(f"{inside}{dot}{name}")


def read(environ: dict[str, Any]) -> Call | None:
    """The call in a request, whose body stays readable; None for a request that no service is named in."""
    scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if scope is None:
        return None
    action, sent = _asked(environ)
    return Call(scope["service"], action, _parameters(sent), scope["region"], scope["key"])


def _asked(environ: dict[str, Any]) -> tuple[str, Iterable[tuple[str, str]]]:
    fields = form(environ)
    if "Action" in fields:
        return fields["Action"], [(place, value) for place, value in fields.items() if place not in PROTOCOL]
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


def _leaves(element: ElementTree.Element, above: str) -> Iterator[tuple[str, str]]:
    if not len(element):
        yield above.removeprefix("."), element.text or ""
    for child in element:
        yield from _leaves(child, f"{above}.{child.tag.rpartition('}')[2]}")
