"""Renders the machines' user data: first boot only, no secrets, no network; everything else is a remote step."""

from pathlib import Path
from typing import Any

import yaml

from configuration.flows import Place

CLOUD_INIT = Path(__file__).resolve().parent.parent / "cloud-init"
LARGEST_USER_DATA = 16384
"""Bytes that EC2 accepts, before base64 encoding (EC2 user guide, "Add user data")."""


def render_user_data(role: Place) -> str:
    """The #cloud-config of one machine: the lists of its role, then those of `cloud-init/base.yaml`, whose last command
    creates the file that marks the first boot as done.

    Raises ValueError if it is larger than EC2 accepts.
    """
    document = _read("base")
    for key, additions in _read(role.value).items():
        document[key] = additions + document.get(key, [])
    text = "#cloud-config\n" + yaml.safe_dump(document, sort_keys=True, width=120)
    if len(text.encode()) > LARGEST_USER_DATA:
        raise ValueError(
            f"the user data of the {role} machine is {len(text.encode())} bytes, but EC2 accepts {LARGEST_USER_DATA}. "
            "Move part of cloud-init/ to a remote step."
        )
    return text


def _read(name: str) -> dict[str, list[Any]]:
    document: dict[str, list[Any]] = yaml.safe_load((CLOUD_INIT / f"{name}.yaml").read_text())
    return document
