"""run_registry.sh, executed in a temporary folder, with stubs for Docker and curl."""

import re
import subprocess
from pathlib import Path

import pytest

from configuration.remote_step import program, script
from tests.shell import run_with_tools

IMAGE = "registry.example.com:5000/registry:v2"
DOCKER = """\
echo "$*" >>{folder}/calls
case "$*" in
    "image inspect --format"*) echo sha256:second ;;
    inspect*RestartCount*) cat {folder}/restarts ;;
    inspect*) echo 'template parsing error: map has no entry for key "Health"' >&2; exit 1 ;;
    "image ls --no-trunc --quiet registry.example.com:5000/registry") printf 'sha256:%s\\n' first second ;;
    logs*) echo 'panic: no configuration' ;;
    exec*--help) cat {folder}/help ;;
esac
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.tools = folder, folder / "bin"
        self.tools.mkdir()
        (folder / "restarts").write_text("0\n")
        (folder / "help").write_text("")
        for tool, text in {
            "docker": DOCKER.format(folder=folder),
            "curl": "",
            "mountpoint": "",
            "chown": "",
            "install": 'mkdir -p "${!#}"',
            "sleep": f"echo $(($(cat {folder}/restarts) + 1)) >{folder}/restarts",
        }.items():
            self.put(tool, text)

    def put(self, tool: str, text: str) -> None:
        (self.tools / tool).write_text(f"#!/bin/bash\n{text}\n")
        (self.tools / tool).chmod(0o755)

    def run(self, image: str = IMAGE) -> subprocess.CompletedProcess[str]:
        moved = re.sub(r"(?<![\w.=])/(etc/docker|srv)/", rf"{self.folder}/\1/", script("run_registry.sh"))
        payload = ["version: 0.1", "certificate"]
        return run_with_tools(moved, "run_registry", [image, "5000"], payload, tools=self.tools, result="&2")

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_the_registry_is_asked_itself_whatever_its_image_says_of_its_health(machine):
    done = machine.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.endswith(f"{IMAGE} responds on port 5000\n")


SHUT = ["--cap-drop ALL", "--security-opt no-new-privileges", "--read-only", "--tmpfs /tmp"]


def test_whoever_takes_over_the_registry_has_a_process_without_rights_on_a_disk_that_is_read_only(machine):
    assert machine.run().returncode == 0
    [run] = [call for call in machine.calls if call.startswith("run ")]
    for option in SHUT:
        assert option in run.partition(IMAGE)[0]


def test_so_has_what_serves_while_garbage_is_collected():
    [run] = re.findall(r"docker run .*?\"\$image\"", program("collect-garbage"), re.DOTALL)
    for option in SHUT:
        assert option in run


def test_a_registry_that_does_not_stay_up_is_given_up_soon_with_what_it_said(machine):
    machine.put("curl", "exit 7")
    failed = machine.run()
    assert failed.returncode == 1
    assert "does not respond on port 5000; Docker has restarted it 3 times" in failed.stdout
    assert failed.stdout.endswith("panic: no configuration\n")


@pytest.mark.parametrize(
    "image", [IMAGE, f"{IMAGE}@sha256:{'ab' * 32}", f"{IMAGE.removesuffix(':v2')}@sha256:{'ab' * 32}"]
)
def test_images_of_earlier_versions_go_once_the_new_one_answers(machine, image):
    assert machine.run(image).returncode == 0
    assert machine.calls[-1] == "image rm --force sha256:first"
    machine.put("curl", "exit 7")
    (machine.folder / "calls").unlink()
    machine.run()
    assert not [call for call in machine.calls if call.startswith("image rm")]


CONTAINERS = """\
echo "$*" >>{folder}/calls
cd {folder}/containers
case "$*" in
    inspect*RestartCount*) echo $(($(cat ../restarts))) ;;
    "inspect --type container"*) [ -e "$4" ] ;;
    "rm --force"*) rm "$3" ;;
    rename*) mv "$2" "$3" ;;
    run*) echo new >registry ;;
    "start registry") touch ../started ;;
    logs*) echo 'panic: no configuration' ;;
esac
"""


@pytest.fixture
def running(machine):
    """A machine with a registry of other settings, which answers if it has been started again."""
    for folder in ("containers", "etc/docker/registry"):
        (machine.folder / folder).mkdir(parents=True)
    (machine.folder / "containers/registry").write_text("former\n")
    (machine.folder / "etc/docker/registry/config.yml").write_text("former")
    machine.put("docker", CONTAINERS.format(folder=machine.folder))
    return machine


def files(machine: Machine) -> dict[str, str]:
    found = [path for path in (machine.folder / "etc/docker").rglob("*") if path.is_file()]
    return {str(path.relative_to(machine.folder / "etc/docker")): path.read_text() for path in found}


def test_a_registry_that_does_not_start_gives_way_to_the_former_one(running):
    """Pulumi keeps the former inputs of the step, so it does not run again if the setting is taken back."""
    running.put("curl", f"[ -e {running.folder}/started ] || exit 7")
    failed = running.run()
    assert failed.returncode == 1
    assert failed.stdout.endswith("so the former one runs again. Correct them, then run pulumi up again.\n")
    containers = list((running.folder / "containers").iterdir())
    assert [(each.name, each.read_text()) for each in containers] == [("registry", "former\n")]
    assert "update --restart always registry" in running.calls
    assert files(running) == {"registry/config.yml": "former"}


def test_a_registry_that_starts_replaces_the_former_one(running):
    assert running.run().returncode == 0
    assert (running.folder / "containers/registry").read_text() == "new\n"
    assert [each.name for each in (running.folder / "containers").iterdir()] == ["registry"]
    assert files(running) == {"registry/config.yml": "version: 0.1", "registry/gitlab-registry.crt": "certificate"}


def test_an_image_that_cannot_be_pulled_leaves_the_registry_and_its_files_alone(running):
    docker = CONTAINERS.replace('case "$*" in', 'case "$*" in\n    pull* | "image inspect"*) exit 1 ;;')
    running.put("docker", docker.format(folder=running.folder))
    assert running.run().returncode == 1
    assert (running.folder / "containers/registry").read_text() == "former\n"
    assert not [call for call in running.calls if call.startswith(("stop", "rename", "rm --force registry "))]
    assert files(running) == {"registry/config.yml": "former"}


@pytest.mark.parametrize("also", ["", "new\n"], ids=["before the new one was created", "afterwards"])
def test_a_step_that_was_interrupted_leaves_one_registry(running, also):
    containers = running.folder / "containers"
    (containers / "registry").rename(containers / "registry-former")
    if also:
        (containers / "registry").write_text(also)
    assert running.run().returncode == 0
    assert [each.name for each in containers.iterdir()] == ["registry"]


def test_what_an_interrupted_step_wrote_does_not_count_as_the_former_files(running):
    kill = 'case "$*" in\n    "image inspect"*) kill -KILL $PPID ;;'
    running.put("docker", CONTAINERS.replace('case "$*" in', kill).format(folder=running.folder))
    assert running.run().returncode not in (0, 1)
    assert files(running)["registry/config.yml"] == "version: 0.1"
    running.put("docker", CONTAINERS.format(folder=running.folder))
    running.put("curl", f"[ -e {running.folder}/started ] || exit 7")
    assert running.run().returncode == 1
    assert files(running) == {"registry/config.yml": "former"}


@pytest.mark.parametrize("help_of_database", ["", "Manages the registry metadata database\n"])
def test_the_files_of_gitlabs_registry_are_marked_as_such(machine, help_of_database):
    """registry-tree applies the rules of distribution's garbage collection to others."""
    (machine.folder / "help").write_text(help_of_database)
    assert machine.run().returncode == 0
    marked = [call for call in machine.calls if call.startswith("exec registry sh -c ")]
    assert len(marked) == bool(help_of_database)
    for call in marked:
        assert call.endswith('touch "$1/filesystem-in-use" sh /var/lib/registry/docker/registry/lockfiles')


def test_a_secret_that_cannot_be_generated_is_not_left_empty(machine):
    secret = machine.folder / "srv/registry/http-secret.env"
    machine.put("openssl", "exit 1")
    assert machine.run().returncode == 1
    assert not secret.exists()
    machine.put("openssl", "echo 0123abcd")
    assert machine.run().returncode == 0
    assert secret.read_text() == "REGISTRY_HTTP_SECRET=0123abcd\n"
