"""Programs of the runner's machine, executed with stubs for Docker, systemd and dnf that record their calls."""

import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from configuration.flows import Place
from configuration.remote_step import PROGRAMS, program, script
from configuration.user_data import render_user_data
from tests.engine import Graph
from tests.shell import run_with_tools
from tests.test_program import payload
from tests.waiting import put_quick_tail

Ran = subprocess.CompletedProcess[str]
BRIDGE = "172.17.0.0/24"
REGISTRY = "203.0.113.16:5000"


def docker(bridge: str, insecure: str = "") -> str:
    """A Docker that runs with this bridge and this insecure registry."""
    return f"case $1 in info) echo {insecure} ;; *) echo {bridge} ;; esac"


class Machine:
    """A runner's machine with stubs of commands; `calls` lists their calls in order."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tools = folder, folder / "bin"
        self.log = folder / "calls"
        self.tools.mkdir()
        for place in ("etc/yum.repos.d", "etc/systemd/system", "usr/local/sbin", "var/lib/gitlab-stack"):
            (folder / place).mkdir(parents=True)
        finish_jobs = folder / "usr/local/sbin/finish-jobs"
        finish_jobs.write_text(program("finish-jobs"))
        finish_jobs.chmod(0o755)
        for tool in ("systemctl", "dnf", "curl", "gitlab-runner", "rpm", "update-ca-trust"):
            self.put(tool, "")
        self.put("docker", docker(BRIDGE))
        put_quick_tail(self.tools)

    def put(self, tool: str, text: str) -> None:
        file = self.tools / tool
        file.write_text(f'#!/bin/bash\necho "{tool} $*" >>{self.log}\n{text}\n')
        file.chmod(0o755)

    def run(self, text: str, *arguments: str, payload: tuple[str, ...] = ()) -> Ran:
        moved = re.sub(r"(?<![\w.])/(etc|usr/local|var/lib)/", rf"{self.folder}/\1/", text)
        return run_with_tools(moved, "step", arguments, payload, tools=self.tools, result="/dev/null")

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


# Configuration and packages -------------------------------------------------------------------------------------------


def test_a_new_configuration_ends_no_job(machine):
    machine.put("curl", "printf 200")
    machine.put("gitlab-runner", "echo 'Verifying runner... is valid'")
    words = ("name", "s_0123456789ab", "http://gitlab")
    done = machine.run(script("configure_runner.sh"), *words, payload=("concurrent = 2", "{}"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (machine.folder / "etc/gitlab-runner/config.toml").read_text() == "concurrent = 2"
    inner = machine.folder / "etc/gitlab-runner/docker-in-docker.json"
    assert inner.read_text() == "{}"
    assert inner.stat().st_mode & 0o777 == 0o644
    assert (machine.folder / "etc/gitlab-runner/.runner_system_id").read_text() == "s_0123456789ab"
    assert "systemctl start gitlab-runner" in machine.calls
    assert not [call for call in machine.calls if re.match("systemctl (stop|restart|kill)", call)]


@contextmanager
def service(machine: Machine, job: str) -> Iterator[None]:
    """A service that is running a job when it receives the signal to finish."""
    loop = f"trap '{job}; exit' QUIT; while :; do sleep 0.01; done"
    with subprocess.Popen(["bash", "-c", loop], process_group=0) as running:
        ways = f"show) echo {running.pid} ;; kill) kill -QUIT {running.pid} ;; stop) kill -KILL -- -{running.pid} ;;"
        machine.put("systemctl", f"case $1 in {ways} esac || true")
        # If nothing waits for the service, it is still running.
        waiting = threading.Thread(target=running.wait)
        waiting.start()
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            waiting.join()


def installed(machine: Machine) -> list[str]:
    """The relevant calls, in order."""
    meaning = {"--downloadonly": "download", "dnf": "install", "kill": "finish", "stop": "stop", "start": "start"}
    meaning["restart"] = "restart"
    words = [set(call.split()) for call in machine.calls]
    return [next(meaning[word] for word in meaning if word in call) for call in words if call & set(meaning)]


def test_another_version_is_installed_when_the_jobs_of_the_first_are_done(machine):
    done_mark = machine.folder / "job-done"
    machine.put("rpm", "[ -e $0.second ] || { touch $0.second; exit 1; }")
    machine.put("dnf", f"case $* in *--downloadonly) ;; *) [ -e {done_mark} ] ;; esac")
    with service(machine, f"sleep 0.2; touch {done_mark}"):
        done = machine.run(script("install_runner.sh"), "17.10.2", BRIDGE, "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(machine) == ["download", "finish", "stop", "install", "start"]


def test_jobs_are_waited_for_half_an_hour_at_most(machine):
    machine.put("rpm", "[ -e $0.second ] || { touch $0.second; exit 1; }")
    with service(machine, "sleep 30"):
        started = time.monotonic()
        done = machine.run(script("install_runner.sh").replace("30m", "0.1s"), "17.10.2", BRIDGE, "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "jobs are still running after 0.1s" in done.stdout
    assert installed(machine) == ["download", "finish", "stop", "install", "start"]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("step", "arguments", "payload"),
    [
        ("install_runner.sh", ("17.10.2", BRIDGE, ""), ()),
        ("install_docker.sh", ("28.5.3", "2.3.4"), ("{}",)),
        ("trust_authority.sh", (), ("one\n",)),
    ],
)
def test_a_step_that_cannot_tell_the_runner_to_finish_aborts_no_job(machine, step, arguments, payload):
    machine.put("rpm", "[[ $* == *containerd* ]]")
    machine.put("systemctl", "case $1 in show) echo 1 ;; kill) exit 1 ;; esac")
    assert machine.run(script(step), *arguments, payload=payload).returncode == 1
    assert [word for word in installed(machine) if word != "download"] == ["finish", "start"]


def test_a_runner_that_could_not_be_upgraded_goes_on(machine):
    machine.put("rpm", "exit 1")
    machine.put("dnf", "case $* in *--downloadonly) ;; *) exit 1 ;; esac")
    with service(machine, ":"):
        done = machine.run(script("install_runner.sh"), "17.10.2", BRIDGE, "")
    assert done.returncode == 1
    assert installed(machine) == ["download", "finish", "stop", "install", "start"]


def test_a_package_that_cannot_be_downloaded_ends_no_job(machine):
    machine.put("rpm", "exit 1")
    machine.put("dnf", "exit 1")
    assert machine.run(script("install_runner.sh"), "17.10.2", BRIDGE, "").returncode == 1
    assert installed(machine) == ["download"]


def test_a_version_that_is_there_leaves_the_service_alone(machine):
    assert machine.run(script("install_runner.sh"), "17.10.1", BRIDGE, "").returncode == 0
    assert installed(machine) == ["install"]


@pytest.mark.parametrize(
    "stale", [docker("172.17.0.0/16"), docker(BRIDGE, REGISTRY)], ids=["other networks", "an insecure registry"]
)
def test_docker_gets_what_it_reads_only_at_its_start_when_the_jobs_are_done(machine, stale):
    """A restart of Docker would abort them."""
    done_mark = machine.folder / "job-done"
    machine.put("docker", stale)
    with service(machine, f"sleep 0.2; touch {done_mark}"):
        done = machine.run(script("install_runner.sh"), "17.10.1", BRIDGE, "")
        assert done_mark.exists()
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(machine) == ["download", "finish", "stop", "restart", "install", "start"]
    assert "systemctl restart docker" in machine.calls


def test_a_docker_with_the_insecure_registry_of_its_file_is_not_restarted(machine):
    machine.put("docker", docker(BRIDGE, REGISTRY))
    assert machine.run(script("install_runner.sh"), "17.10.1", BRIDGE, REGISTRY).returncode == 0
    assert installed(machine) == ["install"]


def test_a_docker_that_does_not_run_is_started_with_its_networks(machine):
    machine.put("docker", "exit 1")
    machine.put("systemctl", "[ $1 != is-active ]")
    done = machine.run(script("install_runner.sh"), "17.10.1", BRIDGE, "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(machine) == ["restart", "install"]


@pytest.mark.parametrize("upgraded", [True, False])
def test_an_upgrade_of_docker_which_restarts_it_waits_for_the_jobs(machine, upgraded):
    done_mark = machine.folder / "job-done"
    machine.put("docker", "")
    machine.put("rpm", f'case "$*" in "-q docker-ce-28.5.3-1.el8") exit {int(upgraded)} ;; *) printf 2.3.4 ;; esac')
    with service(machine, f"sleep 0.2; touch {done_mark}"):
        done = machine.run(script("install_docker.sh"), "28.5.3", "2.3.4", payload=("{}",))
        assert not upgraded or done_mark.exists()
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(machine) == (["download", "finish", "stop", "install", "start"] if upgraded else ["install"])


# The authority --------------------------------------------------------------------------------------------------------


def test_docker_and_the_runner_learn_of_another_authority_when_the_jobs_are_done(machine):
    done_mark = machine.folder / "job-done"
    with service(machine, f"sleep 0.2; touch {done_mark}"):
        done = machine.run(script("trust_authority.sh"), payload=("one\n",))
        assert done_mark.exists()
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(machine) == ["finish", "stop", "restart", "start"]
    assert "systemctl restart docker" in machine.calls


def test_an_authority_that_docker_could_not_load_is_loaded_by_the_repeated_step(machine):
    without_runner = 'case "$*" in "is-active --quiet gitlab-runner") exit 1 ;; {} esac'
    machine.put("systemctl", without_runner.format("restart*) exit 1 ;;"))
    assert machine.run(script("trust_authority.sh"), payload=("one\n",)).returncode == 1
    machine.put("systemctl", without_runner.format(""))
    for restarts in (1, 0):
        machine.log.unlink()
        assert machine.run(script("trust_authority.sh"), payload=("one\n",)).returncode == 0
        assert machine.calls.count("update-ca-trust extract") == 1
        assert machine.calls.count("systemctl restart docker") == restarts


def test_another_configuration_does_not_restart_the_registrys_docker():
    assert "systemctl restart" not in script("install_docker.sh")
    assert "restart docker" not in script("run_registry.sh")


# The machine's own ports ----------------------------------------------------------------------------------------------

# The machine, and a container on each of Docker's two kinds of bridges, in separate network namespaces.
NAMESPACES = """
set -euo pipefail
mount -t tmpfs none /run
ip link set lo up
for bridge in docker0 br-0123456789ab; do
    mkdir -p /run/netns
    ip netns add "$bridge"
    ip link add "$bridge" type veth peer name eth0 netns "$bridge"
    ip address add "172.17.${number:=0}.1/24" dev "$bridge"
    ip link set "$bridge" up
    ip -n "$bridge" address add "172.17.$number.2/24" dev eth0
    ip -n "$bridge" link set eth0 up
    ip -n "$bridge" route add default via "172.17.$number.1"
    number=$((number + 1))
done
ip address add 10.42.0.20/32 dev lo
connects() {
    for address; do
        status=0
        curl --silent --head --noproxy '*' --max-time 5 --output /dev/null "http://$address:2222" || status=$?
        case $status in 0) echo reached ;; 7) echo refused ;; *) echo "curl's status $status" ;; esac
    done
}
export -f connects
python3 -m http.server 2222 >/dev/null 2>&1 &
ip netns exec docker0 python3 -m http.server 2222 >/dev/null 2>&1 &
until [[ $(connects 127.0.0.1 172.17.0.2) != *refused* ]]; do sleep 0.05; done
look() {
    ip netns exec docker0 bash -c 'connects 172.17.0.1'
    ip netns exec br-0123456789ab bash -c 'connects 172.17.1.1 10.42.0.20'
    connects 172.17.0.2 10.42.0.20
}
look
echo then
bash "$1"
bash "$1"
look
iptables -S INPUT | grep -c REJECT
kill $(jobs -p)
"""


@pytest.mark.needs("curl", "iptables", "unshare", root=True)
def test_containers_do_not_reach_the_machines_own_ports(tmp_path):
    command = ["unshare", "--net", "--mount", "bash", "-c", NAMESPACES, "namespaces"]
    done = subprocess.run([*command, PROGRAMS / "refuse-containers"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = done.stdout.split("then\n")
    assert before.split() == ["reached"] * 5
    # The machine still reaches its containers, and itself; a second run adds nothing.
    assert after.split() == ["refused", "refused", "refused", "reached", "reached", "2"]


def test_dockers_start_needs_the_ports_to_be_shut_and_no_step_restarts_it_for_that(graph: Graph, machine):
    lines = payload(graph, "runner-refuse-containers")
    machine.put("iptables", "")
    machine.put("ip6tables", "")
    done = machine.run(script("install_boot_program.sh"), "refuse-containers", payload=tuple(lines))
    assert done.returncode == 0, done.stderr
    unit = (machine.folder / "etc/systemd/system/refuse-containers.service").read_text()
    assert "Before=docker.service\n" in unit
    assert "RequiredBy=docker.service\n" in unit
    assert os.access(machine.folder / "usr/local/sbin/refuse-containers", os.X_OK)
    assert len([call for call in machine.calls if "INPUT" in call]) == 4
    assert "systemctl start refuse-containers" in machine.calls
    assert not [call for call in machine.calls if "restart" in call]


@pytest.mark.parametrize(
    ("present", "wanted", "installed_version"),
    [
        (None, "2.3.4", "2.3.4"),
        ("2.3.4", "2.3.4", "2.3.4"),
        ("2.3.10", "2.3.4", "2.3.10"),
        ("2.3.3", "2.3.10", "2.3.10"),
        ("1.7.29", "2.3.4", "2.3.4"),
        ("2.4.1", "2.3.4", "2.3.4"),
    ],
    ids=["a new machine", "the same", "a later patch stays", "an earlier patch", "an earlier minor", "a later minor"],
)
def test_containerd_is_of_the_version_of_the_settings_or_a_later_patch_of_it(
    machine, present, wanted, installed_version
):
    machine.put("rpm", f"printf {present}" if present else "echo 'package containerd.io is not installed'; exit 1")
    machine.put("docker", "")
    machine.put("systemctl", "[ $1 != is-active ]")
    done = machine.run(script("install_docker.sh"), "28.5.2", wanted, payload=("{}",))
    assert done.returncode == 0, done.stdout + done.stderr
    [install] = [call for call in machine.calls if call.startswith("dnf ")]
    assert install.endswith(
        f" docker-ce-28.5.2-1.el8 docker-ce-cli-28.5.2-1.el8 containerd.io-{installed_version}-*.el8"
    )


def test_both_machines_with_docker_get_the_containerd_of_the_settings(graph: Graph):
    for place in ("runner", "registry"):
        command = graph.step(f"{place}-install-docker").inputs["create"]
        assert shlex.split(command)[-2:] == ["28.5.2", "2.3.4"]


# Leftovers of jobs ----------------------------------------------------------------------------------------------------

DOCKER = """\
case "$*" in
    "ps "*) [ ! -e {folder}/jobs ] || {{ rm {folder}/jobs; echo a-container; }} ;;
    "volume ls"*) echo one-cache; echo another-cache ;;
    "info "*) echo {folder} ;;
esac
"""


def prune(machine: Machine, used: int) -> list[str]:
    machine.put("docker", DOCKER.format(folder=machine.folder))
    machine.put("df", f"echo 'Use%'; echo ' {used}%'")
    machine.put("sleep", "")
    done = machine.run(program("prune-docker"), "70")
    assert done.returncode == 0, done.stdout + done.stderr
    return machine.calls


def test_what_jobs_left_is_removed_and_images_stay_while_there_is_room(machine):
    calls = prune(machine, 70)
    assert "docker volume rm one-cache another-cache" in calls
    listed = next(call for call in calls if call.startswith("docker volume ls"))
    assert "dangling=true" in listed
    assert "label=com.gitlab.gitlab-runner.managed=true" in listed
    assert "docker container prune --force --filter until=24h" in calls
    assert "docker network prune --force --filter until=24h" in calls
    assert not [call for call in calls if call.startswith(("docker image prune", "docker system prune"))]


def test_images_without_a_container_go_when_the_disk_is_rather_full(machine):
    assert "docker image prune --all --force" in prune(machine, 71)


def test_a_moment_without_jobs_is_waited_for(machine):
    (machine.folder / "jobs").touch()
    calls = prune(machine, 50)
    asked = [number for number, call in enumerate(calls) if call.startswith("docker ps")]
    [slept] = [number for number, call in enumerate(calls) if call == "sleep 10"]
    [removed] = [number for number, call in enumerate(calls) if call.startswith("docker volume rm")]
    assert asked[0] < slept < asked[1] < removed


def test_a_machine_that_exists_gets_what_prunes_it_and_not_at_midnight(graph: Graph, machine):
    lines = payload(graph, "runner-schedule-prune")
    assert lines[0] == program("prune-docker")
    assert graph.comes_after(graph.step("runner-schedule-prune"), graph.step("runner-install-docker"))
    machine.put("systemd-analyze", "echo '    Next elapse: Fri 2026-11-27 03:17:00 UTC'")
    *_, name, unit, calendar, setting = shlex.split(graph.step("runner-schedule-prune").inputs["create"])
    done = machine.run(script("schedule_program.sh"), name, unit, calendar, setting, payload=tuple(lines))
    assert done.returncode == 0, done.stderr
    assert (machine.folder / "usr/local/sbin/prune-docker").read_text() == program("prune-docker")
    assert os.access(machine.folder / "usr/local/sbin/prune-docker", os.X_OK)
    service = (machine.folder / "etc/systemd/system/docker-prune.service").read_text()
    assert "ExecStart=/usr/local/sbin/prune-docker 70\n" in service
    assert "OnCalendar=03:17" in (machine.folder / "etc/systemd/system/docker-prune.timer").read_text()
    assert "systemctl restart docker-prune.timer" in machine.calls
    assert "prune" not in render_user_data(Place.RUNNER)


SCHEDULED = ("program", "[Service]\n", "[Timer]\n")


def test_a_program_without_a_calendar_loses_its_timer_and_stays(machine):
    timer = machine.folder / "etc/systemd/system/a-unit.timer"
    timer.touch()
    done = machine.run(script("schedule_program.sh"), "a-program", "a-unit", "", "aSetting", payload=SCHEDULED)
    assert done.returncode == 0, done.stderr
    assert (machine.folder / "usr/local/sbin/a-program").read_text() == "program"
    assert timer.with_suffix(".service").read_text() == "[Service]\n"
    assert not timer.exists()
    assert machine.calls == ["systemctl disable --now a-unit.timer", "systemctl daemon-reload"]


def test_another_calendar_does_not_start_what_it_would_have_started_before(machine):
    """A persistent timer starts its unit at once if its calendar has occurred since its last run."""
    timer, stamp = (machine.folder / path for path in ("etc/systemd/system/a-unit.timer", "var/lib/systemd/timers"))
    for present, changes in (("", True), ("[Timer]\n", False), ("[Timer]\n#another\n", True)):
        if present:
            timer.write_text(present)
        machine.log.unlink(missing_ok=True)
        before = time.time_ns()
        done = machine.run(script("schedule_program.sh"), "a-program", "a-unit", "daily", "aSetting", payload=SCHEDULED)
        assert done.returncode == 0, done.stderr
        assert timer.read_text() == "[Timer]\n"
        [last_run] = stamp.iterdir()
        assert last_run.name == "stamp-a-unit.timer"
        assert (last_run.stat().st_mtime_ns >= before - 10**7) == changes  # the kernel's clock of files is coarse
        stop = ["systemctl stop a-unit.timer"] if changes else []
        enable = ["systemctl enable --quiet a-unit.timer", "systemctl restart a-unit.timer"]
        assert [call for call in machine.calls if "systemctl" in call] == [*stop, "systemctl daemon-reload", *enable]
        os.utime(last_run, (0, 0))


@pytest.mark.parametrize("answer", ["echo '    Next elapse: never'", "echo 'Failed to parse calendar' >&2; exit 1"])
def test_a_calendar_that_never_occurs_again_is_refused_by_the_name_of_its_setting(machine, answer):
    machine.put("systemd-analyze", answer)
    refused = machine.run(
        script("schedule_program.sh"), "a-program", "a-unit", "1999-*-*", "aSetting", payload=SCHEDULED
    )
    assert refused.returncode == 1
    assert "aSetting: '1999-*-*' never occurs again" in refused.stdout
    assert not (machine.folder / "usr/local/sbin/a-program").exists()
