"""A client of the part of the EC2 Query API that deals with snapshots.

Sources: Amazon EC2 API Reference, "Query requests for Amazon EC2", "Error codes" and the pages of the actions below.
"""

import contextlib
import datetime
import http.client
import ssl
import time
import urllib.parse
import xml.etree.ElementTree as ET
from typing import Callable, Iterator, List, Mapping, NamedTuple, Optional

from .errors import FAILED, NOT_PERMITTED, BackupError
from .metadata import Credentials
from .signature import signed_headers
from .time_limits import TimeLimitError, time_limit

VERSION = "2016-11-15"
LIMIT = 10
"""Seconds for one request in total. While it waits for CreateSnapshot, the file system is frozen."""
PAUSES = (1, 2, 4, 8)
"""Seconds before each further attempt of a request that AWS throttled or failed to process."""
NEW_PAUSES = (1, 2, 4, 8, 15)
"""The same for a request about a snapshot that was created a moment ago: AWS may not know it, or the tags on which a
permission depends, everywhere yet (Amazon EC2 Developer Guide, "Eventual consistency in the Amazon EC2 API").
"""
DOMAINS = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}
"""Domains of partitions that have another one, by how their regions begin (botocore, partitions.json)."""
SHOWN = 300  # characters of an error; a refusal contains a long encoded explanation


class Tag:
    """Names of the tags of a snapshot; a backup is found by them alone."""

    STACK = "gitlab-stack"
    ROLE = "gitlab-role"
    PAIR = "gitlab-backup"
    """The ID that the server's snapshot shares with the registry's: the server's UTC time, as in 20261127T230004Z."""
    KEEP = "gitlab-keep"
    REASON = "gitlab-reason"
    NAME = "Name"


class ApiError(BackupError):
    """AWS refused or failed to process a request."""

    def __init__(self, action: str, status: int, code: str, message: str) -> None:
        self.denied = code in ("UnauthorizedOperation", "AuthFailure", "InvalidClientTokenId", "RequestExpired")
        self.temporary = status >= 500 or code in ("RequestLimitExceeded", "Throttling")
        self.missing = code == "InvalidSnapshot.NotFound"
        self.in_use = code == "InvalidSnapshot.InUse"
        """Whether a snapshot belongs to an image, which an administrator has made of it."""
        self.locked = "lock" in f"{code} {message}".lower()
        """Whether a snapshot is locked. AWS's list of error codes has none for it, but every text contains the word."""
        text = f"AWS refused {action}: {code}: {message}" if code else f"AWS answered {status} to {action}"
        remedy = (
            ". Run pulumi up, which restores the machine's role, and check the machine's clock" if self.denied else ""
        )
        super().__init__(text[:SHOWN].rstrip(".") + remedy, NOT_PERMITTED if self.denied else FAILED)


class NoAnswerError(BackupError):
    """AWS did not answer, so the request may or may not have been processed."""

    temporary = True


class Snapshot(NamedTuple):
    """A snapshot; `started` is in UTC, `size` is that of its volume in GiB."""

    id: str
    state: str
    started: datetime.datetime
    size: int
    tags: Mapping[str, str]

    @property
    def role(self) -> str:
        """The role of the machine whose volume it is of."""
        return self.tags.get(Tag.ROLE, "")

    @property
    def pair(self) -> str:
        """The ID of the pair it belongs to."""
        return self.tags.get(Tag.PAIR, "")

    @property
    def keep(self) -> str:
        """The kind of its retention; `retention.KINDS` lists them."""
        return self.tags.get(Tag.KEEP, "")


class Ec2:
    """EC2 of one region. `endpoint` replaces its address, for tests."""

    def __init__(self, region: str, credentials: Credentials, endpoint: str = "") -> None:
        self.region = region
        self.credentials = credentials
        domain = DOMAINS.get(region.partition("-")[0], "amazonaws.com")
        self.url = urllib.parse.urlsplit(endpoint or f"https://ec2.{region}.{domain}")

    def prepared_snapshot(self, volume_id: str, description: str, tags: Mapping[str, str]) -> Callable[[], str]:
        """Connect and sign. The returned function sends the request and returns the ID of the new snapshot."""
        parameters = {"VolumeId": volume_id, "Description": description}
        parameters["TagSpecification.1.ResourceType"] = "snapshot"
        for number, (key, value) in enumerate(sorted(tags.items()), 1):
            parameters[f"TagSpecification.1.Tag.{number}.Key"] = key
            parameters[f"TagSpecification.1.Tag.{number}.Value"] = value
        send = self._prepared("CreateSnapshot", parameters)
        return lambda: _text(send(), "snapshotId")

    def lock(self, snapshot_id: str, days: int) -> Optional[datetime.datetime]:
        """Lock a new snapshot so that nothing without the right to unlock it can delete it for this number of days.

        Returns when the lock ends; None if the days start later, once the snapshot is completed (Amazon EBS User Guide,
        "Considerations for Amazon EBS snapshot lock").
        """
        duration = {"LockMode": "governance", "LockDuration": str(days)}
        answer = self._call("LockSnapshot", {"SnapshotId": snapshot_id, **duration}, new=True)
        ends = _text(answer, "lockExpiresOn")
        return _time(ends) if ends else None

    def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot. Raises ApiError, for example if it is locked."""
        self._call("DeleteSnapshot", {"SnapshotId": snapshot_id})

    def snapshots(self, stack: str) -> List[Snapshot]:
        """All snapshots of a stack, the newest one first."""
        found: List[Snapshot] = []
        selected = {"Owner.1": "self", "Filter.1.Name": f"tag:{Tag.STACK}", "Filter.1.Value.1": stack}
        while True:
            answer = self._call("DescribeSnapshots", selected)
            found += [_snapshot(item) for item in answer.findall("snapshotSet/item")]
            token = _text(answer, "nextToken")
            if not token:
                return sorted(found, key=lambda snapshot: snapshot.started, reverse=True)
            selected["NextToken"] = token

    def _call(self, action: str, parameters: Mapping[str, str], *, new: bool = False) -> ET.Element:
        """The answer to a request that can be repeated; with `new`, it is about a new snapshot."""
        for pause in NEW_PAUSES if new else PAUSES:
            try:
                return self._prepared(action, parameters)()
            except NoAnswerError:
                pass
            except ApiError as error:
                if not error.temporary and not (new and (error.missing or error.denied)):
                    raise
            time.sleep(pause)
        return self._prepared(action, parameters)()

    def _prepared(self, action: str, parameters: Mapping[str, str]) -> Callable[[], ET.Element]:
        body = urllib.parse.urlencode({**parameters, "Action": action, "Version": VERSION}).encode()
        headers = signed_headers(
            body,
            host=self.url.netloc,
            region=self.region,
            service="ec2",
            credentials=self.credentials,
            now=datetime.datetime.utcnow(),  # noqa: DTZ003, a signature contains UTC
        )
        connection = self._connection()

        def send() -> ET.Element:
            with answer_expected(action), contextlib.closing(connection):
                connection.request("POST", "/", body=body, headers=headers)
                answer = connection.getresponse()
                return _content(action, answer.status, answer.read())

        with answer_expected(action):
            connection.connect()
        return send

    def _connection(self) -> http.client.HTTPConnection:
        if self.url.scheme == "http":
            return http.client.HTTPConnection(self.url.netloc, timeout=LIMIT)
        return http.client.HTTPSConnection(self.url.netloc, timeout=LIMIT, context=ssl.create_default_context())


@contextlib.contextmanager
def answer_expected(action: str) -> Iterator[None]:
    """Raise NoAnswerError if the block takes longer than LIMIT, or if the connection fails."""
    try:
        with time_limit(LIMIT):
            yield
    except TimeLimitError:
        raise NoAnswerError(f"AWS did not answer {action} within {LIMIT} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"AWS did not answer {action}: {error or type(error).__name__}") from None


def _content(action: str, status: int, body: bytes) -> ET.Element:
    try:
        root = ET.fromstring(body.decode(errors="replace"))
    except ET.ParseError:
        raise ApiError(action, status, "", "") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if status != 200:
        raise ApiError(action, status, root.findtext(".//Code") or "", root.findtext(".//Message") or "")
    return root


def _snapshot(item: ET.Element) -> Snapshot:
    tags = {_text(tag, "key"): _text(tag, "value") for tag in item.findall("tagSet/item")}
    size = int(_text(item, "volumeSize") or 0)
    return Snapshot(_text(item, "snapshotId"), _text(item, "status"), _time(_text(item, "startTime")), size, tags)


def _text(element: ET.Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _time(text: str) -> datetime.datetime:
    # With or without a fraction, always in UTC: 2026-11-27T23:00:04.512Z.
    at = datetime.datetime.strptime(text.rstrip("Z").partition(".")[0], "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007
    return at.replace(tzinfo=datetime.timezone.utc)
