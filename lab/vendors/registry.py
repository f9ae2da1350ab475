"""The vendor's container registry: Debian's docker-registry, read-only, with GitLab's registry image in it.

In the image is GitLab's own server where there is one (lab/parts.py), else Debian's again.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from lab import parts, workspace
from lab.cloud.shell import call
from lab.containers import SOCKET, client, docker
from lab.workspace import CACHE, RUN, STATE, Daemon, LabError, inputs_hash

SOURCE = Path(__file__).parent / "registry_image"
STORAGE = STATE / "vendors" / "registry"
SERVER = "docker-registry"
PORT = 5568
NAME = "gitlab-org/build/cng/gitlab-container-registry"
TAGS = ("v4.15.2-gitlab", "v4.17.1-gitlab")  # the second is what an upgrade goes to
START_TIMEOUT = 20.0  # seconds

_daemon = Daemon("vendors-registry", [SERVER, "serve", str(RUN / "vendors-registry.yml")])


def ensure() -> None:
    """Build the image and put it into the registry's storage, unless it is of the present files.

    Needs the lab's engine to run. Raises LabError when a step fails.
    """
    part = parts.find(parts.REGISTRY)
    server, busybox = part or find_program(SERVER), find_program("busybox")
    wanted = inputs_hash(Path(__file__), SOURCE, server, busybox)
    marker = STORAGE / "inputs"
    if marker.exists() and marker.read_text() == wanted:
        return
    stop()
    STORAGE.parent.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="registry-", dir=STORAGE.parent) as folder:
        storage, context = Path(folder, "storage"), Path(folder, "context")
        prepare_context(context, server, busybox)
        _fill(storage, context)
        (storage / "inputs").write_text(wanted)
        shutil.rmtree(STORAGE, ignore_errors=True)
        storage.rename(STORAGE)
        parts.note(parts.REGISTRY, real=part is not None)


def prepare_context(context: Path, server: Path, busybox: Path) -> None:
    """What the image is built from: a folder that is not there yet."""
    shutil.copytree(SOURCE, context)
    root = context / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy2(server, root / "bin" / "registry")
    shutil.copy2(busybox, root / "bin" / "busybox")
    copy_libraries(server, root)
    # Whatever the umask is: the server runs as a user of its own.
    call("chmod", "--recursive", "u=rwX,go=rX", str(context))


def start() -> None:
    """Serve the storage on 127.0.0.1. Idempotent."""
    configuration = RUN / "vendors-registry.yml"
    RUN.mkdir(parents=True, exist_ok=True)
    configuration.write_text(_configuration(STORAGE, f"127.0.0.1:{PORT}", read_only=True))
    _daemon.start()


def stop() -> None:
    _daemon.stop()


def copy_libraries(program: Path, root: Path) -> None:
    """Put the libraries that a program is linked to where it looks for them below `root`."""
    for library in libraries(call("ldd", str(program), check=False)):  # which fails for a static program: it has none
        target = root / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


def libraries(listed: str) -> list[Path]:
    """The files in the output of ldd."""
    words = (line.split() for line in listed.splitlines())
    return sorted({Path(word) for line in words for word in line if word.startswith("/")})


def find_program(name: str) -> Path:
    """This machine's program of that name. Raises LabError when it is not there."""
    found = shutil.which(name)
    if found is None:
        raise LabError(f"{name} is not there: `python -m lab up` installs it when run as root")
    return Path(found)


def _fill(storage: Path, context: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = storage.parent / "configuration.yml"
    configuration.write_text(_configuration(storage, address, read_only=False))
    with (storage.parent / "log").open("w") as log:
        server = subprocess.Popen([SERVER, "serve", configuration], stdout=log, stderr=subprocess.STDOUT)
    try:
        _await(address, server)
        for tag in TAGS:
            image = f"registry.gitlab.com/{NAME}:{tag}"
            command = client("build", f"--build-arg=VERSION={tag}", f"--tag={image}", str(context))
            workspace.run(f"registry image {tag}", command, log="registry-image", env={"DOCKER_BUILDKIT": "0"})
            call(
                *("skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"),
                *(f"--src-daemon-host=unix://{SOCKET}", f"docker-daemon:{image}", f"docker://{address}/{NAME}:{tag}"),
            )
            docker("rmi", image)
    finally:
        server.terminate()
        server.wait()


def _await(address: str, server: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise LabError(f"{SERVER} does not come up on {address}")


def _configuration(storage: Path, address: str, *, read_only: bool) -> str:
    return f"""version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  maintenance: {{readonly: {{enabled: {str(read_only).lower()}}}}}
http: {{addr: "{address}", secret: vendors}}
"""
