"""install-security-updates, executed with stubs for dnf, rpm, systemd and gitlab-runner."""

import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from configuration.flows import Place
from configuration.remote_step import program
from configuration.systemd_units import UPDATE_DELAY
from tests.test_program import payload
from tests.waiting import put_quick_tail

TEXT = program("install-security-updates")
HINTS = {
    "no reboot": "echo 'Reboot should not be necessary.'",
    "reboot": "echo 'Reboot is required to fully utilize these updates.'; exit 1",
    "error": "echo 'Error: Failed to download metadata' >&2; exit 1",
}


class Machine:
    """A machine with stubs of commands; `calls` lists their calls in order. The runner's service can have a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "marks").mkdir()
        (folder / "finish-jobs").write_text(program("finish-jobs"))
        (folder / "finish-jobs").chmod(0o755)
        self.put("systemctl", "[ $1 != is-active ]")
        self.put("dnf", "case $* in *repoquery*) echo 2.3.5-1.el8 ;; esac")
        self.packages()
        self.put("uname", "echo 4.18.0-553.el8_10.x86_64")
        self.put("sleep", "")
        put_quick_tail(folder / "bin")
        self.hint("no reboot")
        self.service: subprocess.Popen[bytes] | None = None

    def put(self, tool: str, text: str) -> None:
        file = self.folder / "bin" / tool
        file.write_text(f'#!/bin/bash\necho "{tool} $*" >>{self.folder}/calls\n{text}\n')
        file.chmod(0o755)

    def packages(self, containerd: str = "printf 2.3.4-1.el8", kernel: str = "4.18.0-553.el8_10.x86_64") -> None:
        kernels = f"printf '%s   Fri 27 Nov 2026\\n' kernel-core-{kernel} kernel-core-4.18.0-553.el8_10.x86_64"
        self.put("rpm", f"case $* in *kernel-core*) {kernels} ;; *) {containerd} ;; esac")

    def hint(self, kind: str) -> None:
        self.put("needs-restarting", HINTS[kind])

    def has_a_job(self, job: str) -> None:
        loop = (
            f"trap '{job}; echo the job has ended >>{self.folder}/calls; exit' QUIT; while :; do /bin/sleep 0.01; done"
        )
        self.service = subprocess.Popen(["bash", "-c", loop], process_group=0)
        threading.Thread(target=self.service.wait, daemon=True).start()  # if nothing waits for it, it is still running
        ways = f"show) echo {self.service.pid} ;; kill) kill -QUIT {self.service.pid} ;;"
        self.put("systemctl", f"case $1 in {ways} esac")

    def run(self, jobs_time: str = "90m") -> subprocess.CompletedProcess[str]:
        text = TEXT.replace("/var/lib/gitlab-stack", f"{self.folder}/marks").replace("/var/log/", f"{self.folder}/log/")
        text = text.replace("/run/gitlab-stack.lock", f"{self.folder}/lock").replace("90m", jobs_time)
        text = text.replace("--wait 3600", "--wait 0.1").replace("/usr/local/sbin/", f"{self.folder}/")
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, check=False)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def changed(self) -> list[str]:
        """The calls that change something."""
        changing = re.compile(r"dnf -y|systemctl (kill|stop|start|reboot)|the job")
        return [line for line in self.calls if changing.match(line)]

    def succeeded(self) -> bool:
        """The criterion of the check: no start after the last success."""
        started, installed = (self.folder / "marks" / f"security-updates-{mark}" for mark in ("started", "installed"))
        return installed.exists() and installed.stat().st_mtime_ns >= started.stat().st_mtime_ns


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    if machine.service and machine.service.poll() is None:
        os.killpg(machine.service.pid, signal.SIGKILL)


DOCKER = "dnf -y --disablerepo=* --enablerepo=docker-ce-stable"
UPGRADE = "dnf -y upgrade --security"
CONTAINERD = [
    f"{DOCKER} --downloadonly upgrade containerd.io-2.3.5-1.el8",
    f"{DOCKER} upgrade containerd.io-2.3.5-1.el8",
]


def test_security_updates_and_a_patch_of_containerd_are_installed_and_nothing_that_is_pinned(machine):
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "security updates are installed\n", "")
    assert machine.changed() == [UPGRADE, *CONTAINERD]
    assert machine.succeeded()
    [asked] = [line for line in machine.calls if "repoquery" in line]
    assert asked.endswith(" containerd.io-2.3.*"), "only patches of the installed minor version"
    for pinned in ("gitlab", "docker-ce ", "docker-ce-cli"):
        assert not [line for line in machine.calls if line.startswith("dnf") and pinned in line]


@pytest.mark.parametrize(
    ("present", "offered"), [("2.3.5-1.el8", "2.3.5-1.el8"), ("2.3.10-1.el8", "2.3.9-1.el8"), ("2.3.5-1.el8", "")]
)
def test_containerd_stays_when_there_is_no_later_patch(machine, present, offered):
    machine.packages(f"printf {present}")
    machine.put("dnf", f"case $* in *repoquery*) echo {offered} ;; esac")
    assert machine.run().returncode == 0
    assert machine.changed() == [UPGRADE]


def test_another_release_of_the_same_containerd_is_a_later_patch(machine):
    """Docker published 2.3.4 twice, with different versions of runc."""
    machine.put("dnf", "case $* in *repoquery*) echo 2.3.4-2.el8 ;; esac")
    machine.run()
    assert machine.changed()[-1].endswith("upgrade containerd.io-2.3.4-2.el8")


def test_a_machine_without_docker_asks_its_repository_nothing(machine):
    machine.packages("echo 'package containerd.io is not installed'; exit 1")
    assert machine.run().returncode == 0
    assert machine.changed() == [UPGRADE]
    assert "docker" not in (machine.folder / "calls").read_text()


def test_a_machine_reboots_only_when_the_updates_ask_for_it(machine):
    machine.hint("reboot")
    done = machine.run()
    assert done.stdout == "security updates are installed; rebooting this machine to apply them\n"
    assert machine.changed()[-1] == "systemctl reboot"
    assert machine.succeeded()


def test_a_kernel_that_is_installed_and_does_not_run_asks_for_a_reboot(machine):
    """needs-restarting of RHEL 8 checks the package kernel, which may not be installed, but not kernel-core."""
    machine.packages(kernel="4.18.0-553.51.1.el8_10.x86_64")
    machine.run()
    assert machine.changed()[-1] == "systemctl reboot"


def test_a_hint_that_fails_is_no_reason_to_reboot_and_is_told(machine):
    machine.hint("error")
    done = machine.run()
    assert done.returncode == 1
    assert "failed; see" in done.stdout
    assert "systemctl reboot" not in machine.changed()
    assert not machine.succeeded()


def test_jobs_are_done_before_containerd_restarts_and_before_a_reboot(machine):
    machine.has_a_job("/bin/sleep 0.2")
    machine.hint("reboot")
    assert machine.run().returncode == 0
    kill = "systemctl kill --kill-who=main --signal=SIGQUIT gitlab-runner"
    stopped = [kill, "the job has ended", "systemctl stop gitlab-runner"]
    assert machine.changed() == [UPGRADE, CONTAINERD[0], *stopped, CONTAINERD[1], "systemctl reboot"]


def test_a_runner_takes_jobs_again_when_there_is_no_reboot(machine):
    machine.has_a_job(":")
    assert machine.run().returncode == 0
    assert machine.changed()[-2:] == [CONTAINERD[1], "systemctl start gitlab-runner"]


def test_jobs_go_on_when_nothing_cuts_them(machine):
    machine.has_a_job(":")
    machine.packages("printf 2.3.5-1.el8")
    assert machine.run().returncode == 0
    assert machine.changed() == [UPGRADE]


def test_jobs_that_take_too_long_are_not_cut_and_the_run_has_failed(machine):
    machine.has_a_job("/bin/sleep 20")
    machine.hint("reboot")
    machine.packages("printf 2.3.5-1.el8")
    done = machine.run(jobs_time="0.1s")
    assert done.returncode == 1
    assert done.stdout.startswith("jobs were still running after 0.1s")
    assert not [line for line in machine.changed() if re.match("systemctl (stop|reboot|start)", line)]
    assert not machine.succeeded()


def test_a_runner_that_cannot_be_told_to_finish_is_not_said_to_have_long_jobs(machine):
    machine.put("systemctl", "[ $1 != kill ]")
    done = machine.run()
    assert done.returncode == 1
    assert done.stdout.startswith("the installation of security updates failed; see ")
    assert machine.changed()[-1].startswith("systemctl kill")


def test_a_failed_installation_reboots_nothing_and_is_told_until_one_succeeds(machine):
    assert machine.run().returncode == 0
    machine.put("dnf", "echo no network; exit 1")
    machine.hint("reboot")
    done = machine.run()
    assert done.returncode == 1
    assert not machine.succeeded()
    assert "systemctl reboot" not in machine.calls
    assert "no network" in (machine.folder / "log/gitlab-stack/install-security-updates.log").read_text()


def test_a_runner_whose_containerd_could_not_be_updated_takes_jobs_again(machine):
    machine.has_a_job(":")
    machine.put("dnf", "case $* in *repoquery*) echo 2.3.5-1.el8 ;; *downloadonly*) ;; *containerd*) exit 1 ;; esac")
    assert machine.run().returncode == 1
    assert machine.changed()[-1] == "systemctl start gitlab-runner"


def test_nothing_is_installed_while_a_step_or_a_collection_has_the_lock(machine):
    holder = ["flock", str(machine.folder / "lock"), "bash", "-c", f"touch {machine.folder}/held; /bin/sleep 30"]
    with subprocess.Popen(holder, process_group=0) as holding:
        while not (machine.folder / "held").exists():
            pass
        done = machine.run()
        os.killpg(holding.pid, signal.SIGKILL)
    assert done.returncode == 75
    assert "not started: a step has been running on this machine" in done.stdout
    assert not (machine.folder / "calls").exists()
    assert not machine.succeeded()


def test_the_lock_is_held_to_the_end_of_the_installation(machine):
    machine.put("dnf", f"flock --nonblock {machine.folder}/lock true && touch {machine.folder}/free; exit 0")
    assert machine.run().returncode == 0
    assert not (machine.folder / "free").exists()


# The timer ------------------------------------------------------------------------------------------------------------


def test_every_machine_gets_the_program_and_its_timer_one_after_the_other(graph):
    assert len(set(UPDATE_DELAY.values())) == 3
    for place in (Place.SERVER, Place.REGISTRY, Place.RUNNER):
        step = graph.step(f"{place}-schedule-updates")
        assert shlex.split(step.inputs["create"])[-2:] == ["Sun 04:00", "securityUpdates"]
        text, service, timer = payload(graph, f"{place}-schedule-updates")
        assert text == TEXT
        assert f"ExecStartPre=/usr/bin/sleep {UPDATE_DELAY[place]}\n" in service
        assert "ExecStart=/usr/local/sbin/install-security-updates\n" in service
        assert "OnCalendar=Sun 04:00\nPersistent=true\n" in timer
        assert graph.comes_after(graph.step(f"{place}-run-checks"), step) or place is Place.REGISTRY
        assert graph.comes_after(graph.step("server-run-checks"), step)


def test_an_empty_setting_switches_the_timer_off(reduced_graph):
    for place in UPDATE_DELAY:
        command = shlex.split(reduced_graph.step(f"{place}-schedule-updates").inputs["create"])
        assert command[-2:] == ["", "securityUpdates"]
