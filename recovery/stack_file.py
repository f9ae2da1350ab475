"""The settings of a stack that is made from a backup, from those of the stack that the backup is of.

A document is the parsed content of a stack file, `Pulumi.<stack>.yaml`. Encrypted values are copied as they are: they
stay valid as long as the keys for decryption (DECRYPTION) are copied, too.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recovery.catalogue import Pair
from recovery.errors import RecoveryError
from settings import Settings, SettingsError
from validation.reader import MAY_HOLD_PRIVATE_KEY

Document = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
PROJECT: Mapping[str, Any] = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
NAME: str = PROJECT["name"]

DECRYPTION = ("secretsprovider", "encryptedkey", "encryptionsalt")
"""Keys of a stack file without which its encrypted values cannot be decrypted; on Pulumi Cloud there are none."""

REGION = "aws:region"

DRILL_DOMAIN = "gitlab-drill.internal"
"""`internal` is reserved for private use (ICANN Board, resolution of 29 July 2024), so no one else can own the name."""

DRILL_TAG = "gitlab-drill"
"""The tag of everything that a drill creates, in addition to the tag of its stack."""

ADOPTED = ("serverDataVolumeId", "registryDataVolumeId", "balancerAddressId")
"""Settings that name resources of the former stack; a stack has its own."""

SNAPSHOTS = ("serverDataSnapshotId", "registryDataSnapshotId")
"""Settings that name the backup from which a stack is created."""

NOT_IN_A_DRILL = (
    *("hostedZoneId", "certificateArn", "plainHttp", "acceptPlainHttpAfterTls"),
    *("smtpAddress", "smtpPort", "smtpUserName", "smtpPassword", "smtpAuthentication", "emailFrom"),
    *("registryGarbageCollection", "registryGarbageCollectionUntagged"),
)
"""Settings with which a copy would act in the name of its original, or change while it is checked."""

DRILL_NETWORKS = ("10.142.0.0/16", "172.30.0.0/16")
"""Networks for a drill; the first that does not overlap the stack's own, to which it may be connected some day."""


class _Loader(yaml.SafeLoader):
    """Takes for something else than text only what Pulumi does. By YAML 1.1, as PyYAML knows it, `12:30` would be a
    number of seconds, and `no` a boolean.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012, as in PyYAML


class _Dumper(yaml.SafeDumper):
    """Writes in quotes what either of the two versions of YAML would not take for a text."""


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("merge", r"^<<$", ["<"]),
):
    for _of in (_Loader, _Dumper):
        _of.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def parsed(text: str) -> Any:  # noqa: ANN401, any YAML
    """The value of a YAML text, as Pulumi reads it."""
    return yaml.load(text, _Loader)


def read(path: Path) -> Document:
    """The content of a stack file. Raises RecoveryError if there is none."""
    try:
        content = parsed(path.read_text())
    except FileNotFoundError:
        raise RecoveryError(f"{path} does not exist: name the settings of the stack with --settings FILE") from None
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise RecoveryError(f"{path} is not a stack file: it has no `config`")
    return content


def write(path: Path, document: Document) -> None:
    """Write a stack file, completely or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(yaml.dump(document, Dumper=_Dumper, sort_keys=False))
    unfinished.replace(path)


def key(name: str) -> str:
    """A setting's key in the file."""
    return f"{NAME}:{name}"


def setting(document: Document, name: str) -> Any:  # noqa: ANN401, it has the type that the setting has
    """The value of a setting, or its default."""
    return document["config"].get(key(name), PROJECT["config"].get(name, {}).get("default"))


def region(document: Document) -> str:
    """The stack's region. Raises RecoveryError if it is missing."""
    found = document["config"].get(REGION)
    if not isinstance(found, str):
        raise RecoveryError(f"{REGION} is missing in the stack's file: set it, or use --region")
    return found


def short(stack: str) -> str:
    """The name of a stack without that of its organization."""
    return stack.rpartition("/")[2]


def name(stack: str) -> str:
    """The name of a stack's file."""
    return f"Pulumi.{short(stack)}.yaml"


def encrypted_keys(document: Document) -> list[str]:
    """Keys whose values contain a secret that this file cannot decrypt, but Pulumi Cloud can; they have to be copied
    with the CLI.
    """
    if any(name in document for name in DECRYPTION):
        return []
    return [name for name, value in document["config"].items() if _has_secret(value)]


def is_of(document: Document, pair: Pair) -> bool:
    """Whether a stack file restores this backup."""
    return snapshots(document) == (pair.server.id, pair.registry.id)


def restored(
    source: Document, pair: Pair, *, former: str, zone: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Document:
    """The settings of a stack that is made from `pair`, in the region of its snapshots, by those of the stack `former`
    that it replaces: it has the same domain, and the same runner to GitLab.
    """
    document = {**source, "config": dict(source["config"])}
    config = document["config"]
    for each in encrypted_keys(source):
        del config[each]
    _remove(config, ADOPTED)
    if pair.server.region != config.get(REGION):
        _remove(config, ("amiId",))
        letter = str(setting(source, "availabilityZone"))[-1:]
        zone = zone or f"{pair.server.region}{letter}"
    config[REGION] = pair.server.region
    _set(
        config,
        serverDataSnapshotId=pair.server.id,
        registryDataSnapshotId=pair.registry.id,
        runnerName=setting(source, "runnerName") or f"{NAME}-{short(former)}",
    )
    if zone:
        _set(config, availabilityZone=zone)
    if pair.server.gitlab_version:
        _set(config, gitlabVersion=pair.server.gitlab_version)
    for snapshot in (pair.server, pair.registry):
        size = f"{snapshot.role}DataVolumeSize"
        if int(setting(source, size)) < snapshot.size:
            _set(config, **{size: str(snapshot.size)})
    _set(config, **(overrides or {}))
    return document


def without_snapshots(document: Document) -> Document:
    """The settings of a stack, without the backup that it is made from."""
    config = dict(document["config"])
    _remove(config, SNAPSHOTS)
    return {**document, "config": config}


class _Config:
    """The settings of a namespace as the program reads them, with a text in place of each secret; without those for
    which no text would do.
    """

    def __init__(self, document: Document, namespace: str) -> None:
        defaults = {name: about.get("default") for name, about in PROJECT["config"].items()}
        prefix = f"{namespace}:"
        own = {key.removeprefix(prefix): value for key, value in document["config"].items() if key.startswith(prefix)}
        found = {**(defaults if namespace == NAME else {}), **own}
        self.secret = {name for name, value in found.items() if _has_secret(value)}
        hidden = self.secret.intersection(MAY_HOLD_PRIVATE_KEY)
        shown = {name: value for name, value in found.items() if value is not None and name not in hidden}
        self._values = shown | dict.fromkeys(self.secret - hidden, "In-place-of-a-secret-1")

    def get(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def names(self) -> list[str]:
        return list(self._values)


def problems(document: Document) -> tuple[str, ...]:
    """Problems of a stack's settings, as far as they can be seen without its secrets."""
    own = _Config(document, NAME)
    try:
        Settings.load(own, _Config(document, "aws"), is_secret=own.secret.__contains__)
    except SettingsError as error:
        return error.problems
    return ()


def drilled(
    source: Document,
    pair: Pair,
    *,
    former: str,
    caller: str,
    public_key: str,
    certificate: str,
    authority: str,
    zone: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Document:
    """The settings of a silenced copy for a drill, as `restored`. It admits only `caller`, a network, and serves
    DRILL_DOMAIN with its own certificate. The private keys have to be added as secrets.
    """
    document = restored(source, pair, former=former, zone=zone)
    config = document["config"]
    _remove(config, NOT_IN_A_DRILL)
    tags = {**(setting(source, "tags") or {}), DRILL_TAG: "true"}
    own = ipaddress.ip_network(str(setting(source, "networkCidr")))
    network = next(each for each in DRILL_NETWORKS if not ipaddress.ip_network(each).overlaps(own))
    _set(
        config,
        drill="true",
        networkCidr=network,
        adminCidrs=[caller],
        clientCidrs=[caller],
        domain=DRILL_DOMAIN,
        certificatePem=certificate,
        certificateAuthority=authority,
        sshPublicKey=public_key,
        runnerName=f"{NAME}-{short(former)}-drill",
        deletionProtection="false",
        backup="false",
        securityUpdates="",
        tags=tags,
    )
    _set(config, **(overrides or {}))
    return document


def left_over(source: Document, in_region: str) -> Document:
    """A stack file with which a drill that was interrupted on another machine, which had the file, can be destroyed."""
    kept = {name: source[name] for name in DECRYPTION if name in source}
    provider = {name: value for name, value in source["config"].items() if name.startswith("aws:")}
    return {**kept, "config": {**provider, REGION: in_region}}


def snapshots(document: Document) -> tuple[Any, Any]:
    """The IDs of the server's and the registry's snapshot from which the stack is created."""
    server, registry = (setting(document, each) for each in SNAPSHOTS)
    return server, registry


def _has_secret(value: object) -> bool:
    if isinstance(value, dict):
        return "secure" in value or any(map(_has_secret, value.values()))
    return isinstance(value, list) and any(map(_has_secret, value))


def _set(config: dict[str, Any], **values: Any) -> None:  # noqa: ANN401, as in the file
    config.update({key(name): value for name, value in values.items()})


def _remove(config: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        config.pop(key(name), None)
