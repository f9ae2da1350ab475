"""A real registry server on the loopback address, and clients that push to it as Docker, BuildKit and ORAS do."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from configuration.remote_step import PROGRAMS
from configuration.zipapp import build_zipapp
from lab import parts

IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
IMAGE_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"

SERVERS = ("docker-registry", "GitLab's registry")
"""Debian's build of distribution 2.8, and the registry that the program installs."""

GO_RUNTIME = {"GOMAXPROCS": "1", "GOGC": "1000"}
"""A server's environment: one thread is enough for one client, and freeing memory less often saves processor time
(https://pkg.go.dev/runtime#hdr-Environment_Variables).
"""


def find(server: str) -> str | None:
    """The path of a server's program; None if it is not available on this machine."""
    if server == "docker-registry":
        return shutil.which(server)
    part = parts.find(parts.REGISTRY)
    return str(part) if part else None


def install_registry_tree(folder: Path) -> Path:
    """Install registry-tree in this folder, as on the machines."""
    installed = folder / "registry-tree"
    installed.write_bytes(build_zipapp(PROGRAMS / "registry_tree"))
    return installed


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of the content; registries store it under its sha256 digest."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def some_bytes(name: str, size: int = 3000) -> bytes:
    """Pseudo-random bytes, the same for the same name in every run."""
    return random.Random(name).randbytes(size)


State = dict[Path, tuple[bytes, int] | None]
"""A registry's files with their content and modification time in nanoseconds, and its folders with None; each folder
comes before its entries. A store has no symbolic links: for one that a test adds, the content is empty.
"""


class Registry:
    """A registry server and its files."""

    def __init__(self, server: str, folder: Path) -> None:
        self.program = find(server)
        self.folder = folder
        self.root = folder / "images"
        self.root.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.configuration = folder / "config.yml"
        self.configuration.write_text(
            f"""version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {self.root}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "{self.address}", secret: tests}}
validation: {{manifests: {{urls: {{allow: ["^https://example.com/"]}}}}}}
"""
        )

    @property
    def store(self) -> Path:
        """The folder with blobs and repositories."""
        return self.root / "docker/registry/v2"

    @contextlib.contextmanager
    def running(self) -> Iterator["Registry"]:
        """Run the server within this context. It has 20 seconds to respond."""
        command = [str(self.program), "serve", str(self.configuration)]
        with (self.folder / "server.log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | GO_RUNTIME)
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    assert server.poll() is None, (self.folder / "server.log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            yield self
        finally:
            server.terminate()
            server.wait()

    def state(self) -> State:
        """All files and folders, to be restored."""
        found: State = {}
        folders = [self.root]
        for folder in folders:
            for entry in os.scandir(folder):
                path = folder / entry.name
                if entry.is_dir(follow_symlinks=False):
                    found[path] = None
                    folders.append(path)
                else:
                    content = b"" if entry.is_symlink() else path.read_bytes()
                    found[path] = content, entry.stat(follow_symlinks=False).st_mtime_ns
        return found

    def restore(self, state: State) -> None:
        """Restore all files and folders.

        The server may run meanwhile: without `storage.cache` in its configuration, it caches nothing
        (https://github.com/distribution/distribution/blob/v2.8.3/registry/handlers/app.go, "configure storage caches").
        """
        now = self.state()
        same = {path for path in state if path in now and now[path] == state[path]}
        for path in reversed(now):
            if path not in same:
                path.rmdir() if now[path] is None else path.unlink()
        for path, kept in state.items():
            if path in same:
                continue
            if kept is None:
                path.mkdir()
            else:
                content, modified = kept
                path.write_bytes(content)
                os.utime(path, ns=(modified, modified))

    def collect(self, *options: str) -> tuple[set[str], set[str]]:
        """Run the server's own garbage collection. Returns the blobs and manifest links that it removed."""
        blobs, manifests = self.blobs(), self.manifests()
        done = self.garbage_collect(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        return blobs - self.blobs(), manifests - self.manifests()

    def garbage_collect(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the server's command of that name, and wait for it."""
        command = [str(self.program), "garbage-collect", *options, str(self.configuration)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | GO_RUNTIME)

    def blobs(self) -> set[str]:
        """The digests of all blobs."""
        return {f"sha256:{path.parent.name}" for path in self.store.glob("blobs/sha256/*/*/data")}

    def manifests(self) -> set[str]:
        """The links of all manifests, each as REPOSITORY@DIGEST."""
        found = (self.store / "repositories").rglob("_manifests/revisions/sha256/*/link")
        top = self.store / "repositories"
        return {f"{path.parents[4].relative_to(top)}@sha256:{path.parent.name}" for path in found}

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        """Send a request; `_` in a header name stands for `-`. Raises AssertionError unless it succeeds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {text!r}"
        return answer

    def push_blob(self, repository: str, content: bytes, algorithm: str = "sha256") -> dict[str, object]:
        """Push a blob. Returns its descriptor, with the digest used for the push and without a media type."""
        location, digest = self._begin_upload(repository), digest_of(content, algorithm)
        mark = "&" if "?" in location else "?"
        self.request("PUT", f"{location}{mark}digest={digest}", content, Content_Type="application/octet-stream")
        return {"digest": digest, "size": len(content)}

    def abort_upload(self, repository: str, content: bytes) -> None:
        """Start to upload a blob and do not complete it."""
        self.request("PATCH", self._begin_upload(repository), content, Content_Type="application/octet-stream")

    def _begin_upload(self, repository: str) -> str:
        location = self.request("POST", f"/v2/{repository}/blobs/uploads/").getheader("Location") or ""
        return "/" + location.split("/", 3)[3] if "://" in location else location

    def push_manifest(self, repository: str, reference: str, manifest: dict[str, object]) -> str:
        """Push a manifest under a tag, or under its digest if `reference` is empty. Returns its digest."""
        media_type = str(manifest.get("mediaType") or (OCI_INDEX if "manifests" in manifest else OCI_IMAGE))
        return self.push_manifest_bytes(repository, reference, json.dumps(manifest, indent=3).encode(), media_type)

    def push_manifest_bytes(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Like push_manifest, for a manifest that is already serialized."""
        digest = digest_of(body)
        self.request("PUT", f"/v2/{repository}/manifests/{reference or digest}", body, Content_Type=media_type)
        return digest

    def get(self, path: str, **headers: str) -> bytes | None:
        """The body of a GET; None if the server does not return 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return content if answer.status == 200 else None

    def push_image(self, repository: str, tag: str, *layers: bytes, oci: bool = False, name: str = "") -> str:
        """Push layers, configuration and manifest, like `docker push`. Returns the manifest's digest."""
        kinds = ("image.config.v1+json", "image.layer.v1.tar+gzip") if oci else ("", "")
        config_type = (
            "application/vnd.oci.image.config.v1+json" if oci else "application/vnd.docker.container.image.v1+json"
        )
        layer_type = f"application/vnd.oci.{kinds[1]}" if oci else "application/vnd.docker.image.rootfs.diff.tar.gzip"
        config = json.dumps({"architecture": "amd64", "os": "linux", "name": name or f"{repository}:{tag}"}).encode()
        pushed = [dict(self.push_blob(repository, layer), mediaType=layer_type) for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE if oci else IMAGE,
            "config": dict(self.push_blob(repository, config), mediaType=config_type),
            "layers": pushed,
        }
        return self.push_manifest(repository, tag, manifest)

    def size(self, digest: str) -> int:
        """Bytes of a blob."""
        hexadecimal = digest.removeprefix("sha256:")
        return (self.store / "blobs/sha256" / hexadecimal[:2] / hexadecimal / "data").stat().st_size

    def push_index(self, repository: str, tag: str, digests: dict[str, str]) -> str:
        """Push an OCI index of existing manifests; `digests` maps each digest to its platform or "attestation"."""
        entries = []
        for digest, platform in digests.items():
            entry: dict[str, object] = {"mediaType": OCI_IMAGE, "digest": digest, "size": self.size(digest)}
            if platform == "attestation":
                entry["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
                entry["platform"] = {"os": "unknown", "architecture": "unknown"}
            else:
                entry["platform"] = dict(zip(("os", "architecture"), platform.split("/"), strict=True))
            entries.append(entry)
        return self.push_manifest(repository, tag, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})

    def push_artifact(self, repository: str, tag: str, content: bytes, **more: object) -> str:
        """Push a file with the empty configuration, like ORAS."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "artifactType": "application/vnd.example.report",
            "config": dict(self.push_blob(repository, b"{}"), mediaType=EMPTY),
            "layers": [dict(self.push_blob(repository, content), mediaType="text/plain")],
            **more,
        }
        return self.push_manifest(repository, tag, manifest)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest with all its tags."""
        self.request("DELETE", f"/v2/{repository}/manifests/{digest}")
