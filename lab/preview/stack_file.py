"""Adapts a stack file to the lab's API: different endpoints, and placeholders for secrets that cannot be read."""

import base64
import itertools
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.preview.placeholder_certificate import placeholder
from lab.workspace import LabError
from validation.private_keys import OPENSSH_MAGIC
from validation.private_keys import string as ssh_string

KEPT_OF_AWS = ("aws:region", "aws:defaultTags", "aws:ignoreTags")
"""The provider's configuration that affects resources; the rest is about credentials and endpoints."""

PLACEHOLDER = "(not-known-here)"
"""Replaces any secret; it passes the program's checks of a password."""

PLACEHOLDER_PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + 43 * "A" + " placeholder"
"""A public key line of zeros."""

PRIVATE_KEY = "sshPrivateKey"
PUBLIC_KEY = "sshPublicKey"
CERTIFICATE, CERTIFICATE_KEY, AUTHORITY = "certificatePem", "certificateKeyPem", "certificateAuthority"


@dataclass(frozen=True)
class StackFile:
    """A stack's configuration: YAML values by full key; `secrets` has the keys with a placeholder, each with the
    reason; `defaults` has the project's defaults.
    """

    values: Mapping[str, Any]
    secrets: Mapping[str, str]
    defaults: Mapping[str, Any]

    @property
    def has_placeholder_certificate(self) -> bool:
        """Whether the domain's own certificate is a placeholder, because its key cannot be read."""
        return any(key.endswith(f":{CERTIFICATE_KEY}") for key in self.secrets)

    def texts(self) -> dict[str, str]:
        """Return the values and defaults as the strings that the engine passes to a program."""
        return {key: _text(value) for key, value in {**self.defaults, **self.values}.items()}


def read(file: Path) -> dict[str, Any]:
    """Return the map in a YAML file. Raises LabError with the reason if it cannot be read."""
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise LabError(f"{file.name} does not exist in {file.parent}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{file.name} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("config", {}), dict):
        raise LabError(f"{file.name} is not a stack file: it must be a map, and so must its `config`")
    return content


def for_the_lab(given: Mapping[str, Any], project: Mapping[str, Any], lab: Mapping[str, Any], api: str) -> StackFile:
    """Return the configuration in the stack file `given`, with the credentials of the lab's stack file and the API's
    address. `project` is Pulumi.yaml; its secret keys without a default are required.
    """
    own = {key: value for key, value in lab["config"].items() if key.startswith("aws:") and key not in KEPT_OF_AWS}
    own["aws:endpoints"] = [dict.fromkeys(endpoints, api) for endpoints in lab["config"]["aws:endpoints"]]
    values: dict[str, Any] = {}
    secrets = {}
    for key, value in given.get("config", {}).items():
        full_key = key if ":" in key else f"{project['name']}:{key}"
        if full_key.startswith("aws:") and full_key not in KEPT_OF_AWS:
            continue
        values[full_key] = _without_ciphertexts(value)
        if values[full_key] != value:
            secrets[full_key] = "encrypted"
    schemas = {f"{project['name']}:{key}": schema for key, schema in project.get("config", {}).items()}
    for full_key, schema in schemas.items():
        if schema.get("secret") and "default" not in schema and full_key not in values:
            secrets[full_key] = "not in the stack file"
    for full_key in secrets:
        if full_key.endswith(f":{PRIVATE_KEY}"):
            values[full_key] = placeholder_key(str(values.get(full_key.replace(PRIVATE_KEY, PUBLIC_KEY), "")))
        elif full_key not in values:
            values[full_key] = PLACEHOLDER
    if f"{project['name']}:{CERTIFICATE_KEY}" in secrets:
        values |= _own_certificate(values, project["name"])
    defaults = {full_key: schema["default"] for full_key, schema in schemas.items() if "default" in schema}
    return StackFile({**values, **own}, secrets, defaults)


def _own_certificate(values: Mapping[str, Any], project: str) -> dict[str, str]:
    """Return a placeholder for the domain's own certificate, its key, and its authority if there is one."""
    domain, given = (str(values.get(f"{project}:{key}") or "") for key in ("domain", CERTIFICATE))
    made = placeholder(domain, given)
    replaced = {CERTIFICATE: made.certificate, CERTIFICATE_KEY: made.key}
    if values.get(f"{project}:{AUTHORITY}"):
        replaced[AUTHORITY] = made.authority
    return {f"{project}:{key}": text for key, text in replaced.items()}


def existing(*configurations: StackFile, stack: str) -> dict[str, Any]:
    """Return the AWS resources that these configurations of a stack refer to. They are assumed to exist."""
    images, addresses, volumes, regions = set(), set(), {}, set()
    domains: dict[str, list[str]] = {}  # by hosted zone
    certificates: dict[str, set[str]] = {}  # names by ARN
    for given in configurations:
        values = {key.partition(":")[2]: value for key, value in {**given.defaults, **given.values}.items()}
        regions.add(values.get("region"))
        images.add(values.get("amiId"))
        addresses.add(values.get("balancerAddressId"))
        if zone_id := values.get("hostedZoneId"):
            domains.setdefault(zone_id, []).append(str(values.get("domain") or ""))
        if arn := values.get("certificateArn"):
            certificates.setdefault(arn, set()).add(str(values.get("domain") or ""))
        for role in ("server", "registry"):
            size = int(values.get(f"{role}DataVolumeSize") or 0)
            volume = {"size": size, "zone": values.get("availabilityZone")}
            if volume_id := values.get(f"{role}DataVolumeId"):
                volumes[volume_id] = {"id": volume_id, **volume}
            if snapshot_id := values.get(f"{role}DataSnapshotId"):
                # The program accepts a snapshot whose volume exists, regardless of its tags, which are not known here.
                volume_id, tags = snapshot_id.replace("snap", "vol"), {"Name": f"{role}-data-{stack}"}
                volumes[volume_id] = {"id": volume_id, **volume, "snapshot": snapshot_id, "tags": tags}
    return {
        "regions": sorted(filter(None, regions)),
        "images": sorted(filter(None, images)),
        "addresses": sorted(filter(None, addresses)),
        "volumes": [volumes[volume_id] for volume_id in sorted(volumes)],
        "hosted_zones": [{"id": zone_id, "name": _parent(domains[zone_id])} for zone_id in sorted(domains)],
        "certificates": [{"arn": arn, "names": sorted(names)} for arn, names in sorted(certificates.items())],
    }


def _parent(domains: Sequence[str]) -> str:
    """Return the longest common parent domain."""
    levels = zip(*(domain.split(".")[::-1] for domain in domains), strict=False)  # from the last label to the first
    common = itertools.takewhile(lambda labels: len(set(labels)) == 1, levels)
    return ".".join([labels[0] for labels in common][::-1])


def ciphertexts(given: Mapping[str, Any], project: str) -> dict[str, Any]:
    """Return the encrypted values of a stack file by full key: they can be compared without being decrypted."""
    found = {}
    for key, value in given.get("config", {}).items():
        if _without_ciphertexts(value) != value:
            found[key if ":" in key else f"{project}:{key}"] = value
    return found


def placeholder_key(public_key: str) -> str:
    """Return a file in the format of the private key for a public key line, with which no login is possible.

    A private key file of OpenSSH contains its public key unencrypted, twice (PROTOCOL.key of OpenSSH). The secret
    numbers are zeros here; one of RSA's two factors is 1.
    """
    try:
        public = base64.b64decode(public_key.split()[1], validate=True)
        kind, *numbers = _texts(public)
    except (IndexError, ValueError):
        return placeholder_key(PLACEHOLDER_PUBLIC_KEY)  # the program reports the error in the line
    if kind == b"ssh-rsa" and len(numbers) == 2:
        exponent, modulus = numbers
        secret = [modulus, exponent, b"", b"", modulus, b"\1"]
    else:
        secret = [*numbers, bytes(32) + numbers[0]] if numbers else [b""]
    private = bytes(8) + b"".join(map(ssh_string, [kind, *secret, b""]))
    private += bytes(range(1, 1 + -len(private) % 8))
    texts = [ssh_string(text) for text in (b"none", b"none", b"")]
    blob = OPENSSH_MAGIC + b"".join(texts) + (1).to_bytes(4) + ssh_string(public) + ssh_string(private)
    body = "\n".join(textwrap.wrap(base64.b64encode(blob).decode(), 70))
    kind_of_file = "OPENSSH PRIVATE KEY"
    return f"-----BEGIN {kind_of_file}-----\n{body}\n-----END {kind_of_file}-----\n"


def _texts(blob: bytes) -> list[bytes]:
    """Split a blob of SSH into its strings, each of which follows its length (RFC 4251, section 5)."""
    found = []
    while blob:
        length = int.from_bytes(blob[:4])
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found


def _without_ciphertexts(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            return PLACEHOLDER
        return {key: _without_ciphertexts(item) for key, item in value.items()}
    return [_without_ciphertexts(item) for item in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value)
