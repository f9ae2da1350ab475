"""One server for all of the vendors' container registries: Debian's docker-registry, read-only.

It has GitLab's registry image, which contains GitLab's own server if it is available (lab/parts.py) and Debian's
otherwise, and the Docker Hub images that the program and its acceptance use, built from the host's programs.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import parts, workspace
from lab.authority import LAB
from lab.containers import SOCKET, client, docker
from lab.shell import call
from lab.vendors import images
from lab.vendors.images import find_program
from lab.workspace import CACHE, RUN, STATE, Daemon, LabError, inputs_hash

SOURCES = Path(__file__).parent
STORAGE = STATE / "vendors" / "registry"
SERVER = "docker-registry"
PORT = 5568
START_TIMEOUT = 20.0  # seconds


@dataclass(frozen=True)
class Image:
    """An image: its tags, the folder it is built from, and its programs and certificates by their paths in it."""

    name: str
    tags: Sequence[str]
    source: Path
    files: Mapping[str, Path]


def offered() -> list[Image]:
    """Return the images. Raises LabError if a program is not installed."""
    busybox = find_program("busybox")
    public = {images.BUNDLE: LAB.certificate()}
    server = parts.find(parts.REGISTRY) or find_program(SERVER)
    return [
        Image(
            "gitlab-org/build/cng/gitlab-container-registry",
            ("v4.15.2-gitlab", "v4.17.1-gitlab"),  # the second is the target of an upgrade
            SOURCES / "registry_image",
            {"bin/registry": server, "bin/busybox": busybox},
        ),
        Image("library/alpine", ("3.23",), SOURCES / "alpine_image", {"bin/busybox": busybox, **public}),
        Image(
            "curlimages/curl",
            ("8.12.1",),
            SOURCES / "curl_image",
            {"usr/bin/curl": find_program("curl"), "bin/busybox": busybox, **public},
        ),
    ]


_daemon = Daemon("vendors-registry", [SERVER, "serve", str(RUN / "vendors-registry.yml")])


def ensure() -> None:
    """Build the images and store them in the registry, unless they are up to date.

    The lab's Docker engine must be running. Raises LabError if a step fails.
    """
    images_offered = offered()
    made_of = {file for image in images_offered for file in image.files.values()}
    sources = [image.source for image in images_offered]
    wanted = inputs_hash(Path(__file__), Path(images.__file__), *sources, *sorted(made_of))
    marker = STORAGE / "inputs"
    if marker.exists() and marker.read_text() == wanted:
        return
    stop()
    STORAGE.parent.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="registry-", dir=STORAGE.parent) as folder:
        storage, contexts = Path(folder, "storage"), Path(folder, "contexts")
        for image in images_offered:
            prepare_context(contexts / image.name, image)
        _fill(storage, contexts, images_offered)
        (storage / "inputs").write_text(wanted)
        shutil.rmtree(STORAGE, ignore_errors=True)
        storage.rename(STORAGE)
        parts.note(parts.REGISTRY, real=parts.find(parts.REGISTRY) is not None)


def prepare_context(context: Path, image: Image) -> None:
    """Create the folder from which an image is built."""
    shutil.copytree(image.source, context)
    images.lay_out(context / "root", image.files)
    call("chmod", "--recursive", "u=rwX,go=rX", str(context))


def start() -> None:
    """Serve the storage on 127.0.0.1. Idempotent."""
    configuration = RUN / "vendors-registry.yml"
    RUN.mkdir(parents=True, exist_ok=True)
    configuration.write_text(_configuration(STORAGE, f"127.0.0.1:{PORT}", read_only=True))
    _daemon.start()


def stop() -> None:
    _daemon.stop()


def _fill(storage: Path, contexts: Path, images_offered: Sequence[Image]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = storage.parent / "configuration.yml"
    configuration.write_text(_configuration(storage, address, read_only=False))
    with (storage.parent / "log").open("w") as log:
        server = subprocess.Popen([SERVER, "serve", configuration], stdout=log, stderr=subprocess.STDOUT)
    try:
        _await(address, server)
        for image in images_offered:
            for tag in image.tags:
                _put(address, f"{image.name}:{tag}", tag, contexts / image.name)
    finally:
        server.terminate()
        server.wait()


def _put(address: str, image: str, tag: str, context: Path) -> None:
    local = f"lab/{image}"
    command = client("build", f"--build-arg=VERSION={tag}", f"--tag={local}", str(context))
    workspace.run(f"image {image}", command, log="registry-image", env={"DOCKER_BUILDKIT": "0"})
    call(
        *("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"),
        *(f"--src-daemon-host=unix://{SOCKET}", f"docker-daemon:{local}", f"docker://{address}/{image}"),
    )
    docker("rmi", local)


def _await(address: str, server: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise LabError(f"{SERVER} does not start on {address}")


def _configuration(storage: Path, address: str, *, read_only: bool) -> str:
    return f"""version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  maintenance: {{readonly: {{enabled: {str(read_only).lower()}}}}}
http: {{addr: "{address}", secret: vendors}}
"""
