from pathlib import Path

import pytest

from lab import containers, workspace
from lab.workspace import LabError

MOUNTINFO = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
50 21 254:0 /lab /lab/docker rw,relatime - ext4 /dev/vda rw
51 50 0:40 / /lab/docker/overlay2/ab/merged rw,relatime - overlay overlay rw
52 21 0:41 / /lab/docker-of\040somebody\134else rw - tmpfs tmpfs rw
53 21 0:42 / /with\040blank/docker/x rw - tmpfs tmpfs rw
""".strip()


def test_mount_points_are_found_in_the_order_of_mounting():
    found = containers._mount_points(MOUNTINFO, Path("/lab/docker"))
    assert found == [Path("/lab/docker"), Path("/lab/docker/overlay2/ab/merged")]


def test_mount_points_below_a_path_with_a_blank_are_found():
    assert containers._mount_points(MOUNTINFO, Path("/with blank/docker")) == [Path("/with blank/docker/x")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["/usr/sbin/dockerd", "--exec-root=/lab/run"],
        ["containerd", "--config", "/lab/run/containerd/containerd.toml"],
        ["/usr/bin/containerd-shim-runc-v2", "-id", "1", "-address", "/lab/run/containerd/containerd.sock"],
    ],
)
def test_the_processes_of_the_engine_are_known_by_its_folder(arguments: list[str]):
    assert containers._is_engine(arguments, Path("/lab/run"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["dockerd"],
        ["containerd", "--config", "/etc/containerd/config.toml"],
        ["tail", "-f", "/lab/run/dockerd.log"],
    ],
)
def test_nobody_elses_process_is_taken_for_the_engine(arguments: list[str]):
    assert not containers._is_engine(arguments, Path("/lab/run"))


def test_a_clone_too_deep_for_a_socket_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(containers, "_answers", lambda: False)
    monkeypatch.setattr(containers, "LONGEST_SOCKET", workspace.ROOT / ("x" * 200) / "containerd.sock")
    with pytest.raises(LabError, match="too long for the engine's sockets"):
        containers.start()


@pytest.fixture
def client_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "docker"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return script


def write_script(script: Path, text: str) -> None:
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)


def test_the_client_talks_to_the_labs_engine_only(client_script: Path):
    write_script(client_script, 'echo "$@"; cat')
    printed = containers.exec_in("machine", "cat", stdin="from stdin")
    assert f"--host=unix://{containers.SOCKET} exec --interactive machine cat\nfrom stdin" in printed
    assert "--config=" in printed


def test_the_clients_message_is_in_the_error(client_script: Path):
    write_script(client_script, "echo 'Error: No such container: x' >&2; exit 1")
    with pytest.raises(LabError, match="docker inspect x: Error: No such container: x"):
        containers.docker("inspect", "x")
    assert containers.docker("inspect", "x", check=False) == ""
