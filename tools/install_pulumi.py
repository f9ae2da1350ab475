"""Installs Pulumi's plugins or CLI in the versions of tools/pins.yaml: `python -m tools.install_pulumi --help`.

These programs receive the AWS credentials and the machines' SSH key. pip only verifies the hashes of the SDK: the
engine downloads a missing plugin itself, and verifies a checksum only if one is given (pulumi sdk workspace/plugins.go,
GetSource). `pulumi plugin install --checksum` is not used: 3.259.0 does not hash the last bytes of an HTTP/1.1 response
with a Content-Length, and so rejects valid files (same file, checksumReader).
"""

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools import pins
from tools.pins import Fetch, Pin

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PLUGIN = re.compile(r"pulumi-resource-(?P<name>[a-z]+), (?P<platform>[a-z0-9-]+)")
CLI = "Pulumi CLI, linux-x64"


def this_platform() -> str:
    """The platform in Pulumi's notation, for example linux-amd64."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ARCHITECTURES.get(machine, machine)}"


def plugins(known: Sequence[Pin], on: str) -> dict[str, Pin]:
    """The plugins to install on a platform, by name; without a checksum if the platform is not pinned."""
    found: dict[str, Pin] = {}
    for pin in known:
        if match := PLUGIN.fullmatch(pin.name):
            name, pinned_for = match["name"], match["platform"]
            elsewhere = replace(pin, name=f"pulumi-resource-{name}, {on}", value=None)
            elsewhere = replace(elsewhere, address=pin.address.replace(pinned_for, on))
            found[name] = pin if pinned_for == on else found.get(name, elsewhere)
    return found


def checked(pin: Pin, fetch: Fetch) -> bytes:
    """Download a file. Raises ValueError if the download fails or the checksum differs."""
    answer = fetch(pin.address, {})
    if answer.status != 200:
        raise ValueError(f"{pin.address} returned {answer.status}")
    found = hashlib.sha256(answer.body).hexdigest()
    if pin.value is None:
        print(f"{pin.name} {pin.version}: NOT verified, no checksum in tools/pins.yaml; its SHA-256 is {found}")
    elif pin.value != found:
        raise ValueError(f"{pin.address} has the SHA-256 {found}, but tools/pins.yaml has {pin.value}; not installed")
    else:
        print(f"{pin.name} {pin.version}: matches the checksum in tools/pins.yaml")
    return answer.body


def install_plugins(known: Sequence[Pin], fetch: Fetch) -> None:
    """Install missing plugins. Raises ValueError as `checked` does, and CalledProcessError if pulumi fails."""
    listed = subprocess.run(["pulumi", "plugin", "ls", "--json"], check=True, stdout=subprocess.PIPE).stdout
    there = {(plugin["name"], plugin["version"]) for plugin in json.loads(listed)}
    for name, pin in plugins(known, this_platform()).items():
        if (name, pin.version) in there:
            print(f"{pin.name} {pin.version}: already installed")
            continue
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
            file.write(checked(pin, fetch))
            file.flush()
            install = ["pulumi", "plugin", "install", "resource", name, pin.version, "--exact", "--file", file.name]
            subprocess.run(install, check=True)


def install_cli(folder: Path, pin: Pin, fetch: Fetch) -> None:
    """Unpack the CLI, `pulumi` and its language hosts, into a new folder.

    Raises ValueError as `checked` does; then it creates nothing.
    """
    content = checked(pin, fetch)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpack = ["tar", "--extract", "--gzip", "--no-same-owner", "--directory", scratch]
        subprocess.run(unpack, input=content, check=True)
        Path(scratch, "pulumi").rename(folder)


def main() -> None:
    """Install the plugins or the CLI."""
    parser = argparse.ArgumentParser(prog="python -m tools.install_pulumi", description=__doc__)
    parser.add_argument(
        "--cli", type=Path, metavar="FOLDER", help="install the CLI (Linux on x86_64) in FOLDER instead of the plugins"
    )
    folder = parser.parse_args().cli
    try:
        if folder is None:
            install_plugins(pins.read(), pins.fetch)
        else:
            [pin] = [each for each in pins.read() if each.name == CLI]
            install_cli(folder, pin, pins.fetch)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"install_pulumi: {error}")


if __name__ == "__main__":
    main()
