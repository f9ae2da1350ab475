"""Installs Pulumi's plugins, or its CLI, in the versions of tools/pins.yaml: `python -m tools.install_pulumi --help`.

They are given AWS's credentials and the machines' key. pip checks the hashes of the SDK alone: a plugin that is missing
is downloaded by the engine, which compares a checksum only if it is told one (pulumi sdk workspace/plugins.go,
GetSource). `pulumi plugin install --checksum` is not used: 3.259.0 leaves out the last bytes of what comes by HTTP/1.1
with a length, and so refuses what is right (the same file, checksumReader).
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
    """As Pulumi names it, for example linux-amd64."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ARCHITECTURES.get(machine, machine)}"


def plugins(known: Sequence[Pin], on: str) -> dict[str, Pin]:
    """What to install on a platform, by the plugin's name; on one that is not pinned there is no checksum."""
    found: dict[str, Pin] = {}
    for pin in known:
        if match := PLUGIN.fullmatch(pin.name):
            name, pinned_for = match["name"], match["platform"]
            elsewhere = replace(pin, name=f"pulumi-resource-{name}, {on}", value=None)
            elsewhere = replace(elsewhere, address=pin.address.replace(pinned_for, on))
            found[name] = pin if pinned_for == on else found.get(name, elsewhere)
    return found


def checked(pin: Pin, fetch: Fetch) -> bytes:
    """The content of a file. Raises ValueError when it has another checksum, or cannot be had."""
    answer = fetch(pin.address, {})
    if answer.status != 200:
        raise ValueError(f"{pin.address} answers with {answer.status}")
    found = hashlib.sha256(answer.body).hexdigest()
    if pin.value is None:
        print(f"{pin.name} {pin.version}: NOT checked, tools/pins.yaml has no checksum of it; this one is {found}")
    elif pin.value != found:
        raise ValueError(f"{pin.address} has the SHA-256 {found}, tools/pins.yaml {pin.value}: it was not installed")
    else:
        print(f"{pin.name} {pin.version}: has the checksum of tools/pins.yaml")
    return answer.body


def install_plugins(known: Sequence[Pin], fetch: Fetch) -> None:
    """Install what is not there. Raises ValueError as `checked` does, CalledProcessError when pulumi fails."""
    listed = subprocess.run(["pulumi", "plugin", "ls", "--json"], check=True, stdout=subprocess.PIPE).stdout
    there = {(plugin["name"], plugin["version"]) for plugin in json.loads(listed)}
    for name, pin in plugins(known, this_platform()).items():
        if (name, pin.version) in there:
            print(f"{pin.name} {pin.version}: is there")
            continue
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
            file.write(checked(pin, fetch))
            file.flush()
            install = ["pulumi", "plugin", "install", "resource", name, pin.version, "--exact", "--file", file.name]
            subprocess.run(install, check=True)


def install_cli(folder: Path, pin: Pin, fetch: Fetch) -> None:
    """Unpack the CLI into a folder that is not there yet: `pulumi` and its language hosts lie in it.

    Raises ValueError as `checked` does, and then makes nothing.
    """
    content = checked(pin, fetch)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpack = ["tar", "--extract", "--gzip", "--no-same-owner", "--directory", scratch]
        subprocess.run(unpack, input=content, check=True)
        Path(scratch, "pulumi").rename(folder)


def main() -> None:
    """Install what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.install_pulumi", description=__doc__)
    parser.add_argument(
        "--cli", type=Path, metavar="FOLDER", help="the CLI, for Linux on x86_64, instead of the plugins"
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
