"""Faults that occur in practice, injected: one plain `up` repairs each, duplicates nothing and loses nothing.

The table in docs/operations.md is generated from the marks (tools/docs_tables.py).
"""

import itertools
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configuration.remote_step import step_command, step_input
from lab import stack
from lab.cloud import faults
from lab.vendors import front, packages
from tests.e2e import full_volume, kept
from tests.e2e.operations import (
    ROLES,
    Finished,
    Operation,
    at_a_terminal,
    client,
    eventually,
    instance_id,
    instances,
    lab,
    machine,
    must,
    on,
    repair,
    repeat_acceptance,
    start_up,
    step,
    up,
)
from tests.e2e.programs import Edits, changed_program

pytestmark = pytest.mark.long

STEPS = (
    *("server-restrict-metadata", "registry-restrict-metadata", "server-schedule-forget-root-password"),
    *("server-schedule-updates", "registry-schedule-updates", "runner-schedule-updates"),
    *("server-trust-authority", "registry-trust-authority", "runner-trust-authority"),
    *("server-grow-root", "server-mount-data", "server-grow-data", "server-make-token-key"),
    *("server-add-gitlab-repository", "server-install-gitlab", "server-configure-gitlab"),
    *("server-prepare-gitlab", "server-schedule-backups", "server-run-checks", "server-run-pipeline"),
    *("registry-grow-root", "registry-mount-data", "registry-grow-data"),
    *("registry-add-docker-repository", "registry-install-docker", "registry-run-registry"),
    *("registry-install-registry-tree", "registry-schedule-garbage-collection", "registry-schedule-backups"),
    *(
        "registry-run-checks",
        "registry-find-image",
        "runner-grow-root",
        "runner-add-docker-repository",
        "runner-install-docker",
    ),
    *("runner-refuse-containers", "runner-schedule-prune", "runner-add-runner-repository"),
    *("runner-install-runner", "runner-configure-runner", "runner-run-checks"),
)
"""Every remote step except those that run before run-step is installed."""

ANOTHER_VERSION: Edits = {
    "configuration/remote_step.py": [('"1,2", "/etc/ssh', '"1-2", "/etc/ssh')],
    "remote/prepare_host.sh": [("set -euo pipefail", "set -euo pipefail # another text")],
    "components/remote_host.py": [("DIAL_ATTEMPTS = 60", "DIAL_ATTEMPTS = 3")],
}
"""Another version of the first steps and of their connections. No version accepts an unknown host key from a known
machine's address.
"""

LINGER = 20
"""Seconds that a step waits before it starts, if a test requests it: long enough to interrupt it."""

HOOK = """\
echo begin "$name" >>/run/steps
trap 'echo end "$name" >>/run/steps' EXIT
[ ! -e /run/linger ] || { seconds=$(cat /run/linger); rm /run/linger; sleep "$seconds"; }
"""
"""Inserted into run-step after the lock: logs the start and end of each run, and waits if a test requests it."""


@pytest.fixture(scope="module")
def image(outputs) -> Iterator[str]:
    """An image pushed before the faults. After them, the image and all data must still exist."""
    digest = kept.push("from-before-the-faults")
    before = kept.holdings()
    yield digest
    assert repair() > 0
    assert kept.holdings() == before
    kept.pull(digest)


@pytest.fixture
def watched(image) -> None:
    """run-step on every machine logs the start and end of each run."""
    for role in ROLES:
        watch(role)


def watch(role: str) -> None:
    place = "/usr/local/sbin/run-step"
    hooked = f"grep -q /run/steps {place} || sed -i '/^status=0$/r /run/hook' {place}"
    must(role, f"cat >/run/hook && rm -f /run/steps && {hooked}", stdin=HOOK)


def lingering(name: str, program: Path | None = None, seconds: int = LINGER) -> Operation:
    """Start an `up` that repeats the step, and return while the step waits."""
    role = name.partition("-")[0]
    must(role, f"echo {seconds} >/run/linger")
    operation = start_up("--replace", step(name), program=program)
    eventually(lambda: on(role, "test ! -e /run/linger").status == 0, interval=0.3)
    return operation


def runs(role: str) -> list[tuple[str, str]]:
    """The starts and ends of steps on a machine, in order."""
    return [(line.split()[0], line.split()[1]) for line in must(role, "cat /run/steps").splitlines()]


def preparations() -> list[str]:
    """The starts and ends of the step prepare_gitlab, in order."""
    return [kind for kind, name in runs("server") if name == "prepare_gitlab"]


def assert_one_at_a_time(role: str) -> None:
    noted = runs(role)
    for (before, _), (after, _) in itertools.pairwise(noted):
        assert before != after, noted


def acceptance_passes() -> float:
    """Repeat the acceptance, which must pass. Returns its seconds."""
    done = repeat_acceptance()
    assert done.status == 0, done.output
    return done.seconds


def boot_id(role: str) -> str:
    done = on(role, "ps -o lstart= 1")
    return done.output.strip() if done.status == 0 else ""


def reboot(role: str) -> None:
    before = boot_id(role)
    client("ec2").reboot_instances(InstanceIds=[instance_id(role)])
    eventually(lambda: boot_id(role) not in ("", before))


@pytest.mark.fault(
    "the SSH connection is cut in the middle of a remote step",
    sees="`remote command exited without exit status or exit signal` from that step",
    heals="`pulumi up`: it waits for the step that is still running, then repeats it",
)
@pytest.mark.parametrize("name", STEPS)
def test_a24_a_cut_connection(name, watched, measured):
    role = name.partition("-")[0]
    operation = lingering(name)
    on(role, "pkill -KILL -u ec2-user -f '^sshd: ec2-user' || pkill -KILL -f '^sshd: ec2-user'")
    cut = operation.finish()
    assert cut.status != 0, cut.output
    assert name in cut.output
    measured(repair(), name)
    assert_one_at_a_time(role)


def test_a24_without_the_lock_a_repeated_step_runs_beside_the_one_that_was_cut_off(image):
    unlocked = {"programs/run-step": [('if ! flock --wait "$limit" 9; then', "if false; then")]}
    with changed_program(unlocked) as program:
        assert up(program=program).status == 0
        watch("server")
        # Long enough for another `up` to reach the same step, even on a busy machine.
        operation = lingering("server-prepare-gitlab", program=program, seconds=3 * LINGER)
        on("server", "pkill -KILL -f '^sshd: ec2-user'")
        assert operation.finish().status != 0
        assert up(program=program).status == 0
        eventually(lambda: len(preparations()) == 4)
    assert preparations() == ["begin", "begin", "end", "end"]
    repair()


@pytest.mark.fault(
    "the SSH connection is cut while a machine is prepared",
    sees="the step `prepare-host` fails",
    heals="`pulumi up`",
)
def test_a_cut_preparation(watched, measured):
    slow = "mv /usr/bin/cloud-init /usr/bin/cloud-init.real && printf '#!/bin/bash\\nsleep 15\\n' >/usr/bin/cloud-init"
    must("runner", f"{slow} && chmod +x /usr/bin/cloud-init")
    operation = start_up("--replace", step("runner-prepare-host"))
    eventually(lambda: on("runner", "pgrep -f '[c]loud-init status --wait'").status == 0, interval=0.3)
    on("runner", "pkill -KILL -f '^sshd: ec2-user'")
    cut = operation.finish()
    must("runner", "mv /usr/bin/cloud-init.real /usr/bin/cloud-init")
    assert cut.status != 0
    assert "runner-prepare-host" in cut.output
    measured(repair())


@pytest.mark.fault(
    "`Ctrl-C` during `up`",
    sees="`update canceled`, after the running step has finished",
    heals="`pulumi up`",
)
def test_an_interrupted_engine(watched, measured):
    operation = lingering("server-prepare-gitlab")
    operation.process.send_signal(signal.SIGINT)
    done = operation.finish()
    assert done.status != 0
    assert "cancel" in done.output
    measured(repair())


@pytest.mark.fault(
    "`kill -9` of the engine during a remote step",
    sees="at the next `up`: `the stack is currently locked by 1 lock(s)`, with a state in files or a bucket",
    heals="`pulumi cancel` if there is a lock; `pulumi up` waits for the step that is still running, then repeats it",
)
def test_a_killed_engine(watched, measured):
    operation = lingering("server-prepare-gitlab")
    operation.process.kill()
    operation.finish()
    assert "currently locked by 1 lock" in up().output
    done = lab("up")
    assert done.status == 0, done.output
    measured(done.seconds)
    assert_one_at_a_time("server")


@pytest.mark.fault(
    "`kill -9` of the engine while AWS makes a machine",
    sees="`up` fails because the machine's interface is in use; `pulumi refresh` asks about the `pending "
    "CREATE` of the machine",
    heals="`pulumi cancel` if there is a lock; terminate that machine (its Name tag is the role's) and wait "
    "until it is terminated; `pulumi up`",
)
def test_an_orphan_of_a_killed_engine_is_named_by_refresh(image, measured):
    faults.inject("RunInstances", kind="slow", seconds=5.0)
    operation = start_up("--replace", machine("runner"))
    eventually(lambda: any(faults.served().values()), interval=0.1)
    operation.process.kill()
    operation.finish()
    faults.clear()
    eventually(lambda: len(instances()) == len(ROLES))
    stack.clear_stale()
    asked = at_a_terminal("refresh", until="VirtualMachine$aws:ec2/instance:Instance::runner")
    assert "pending CREATE of" in asked
    stack.clear_stale()
    orphan = instance_id("runner")
    client("ec2").terminate_instances(InstanceIds=[orphan])
    # It keeps the interface until it is terminated, which takes a minute during a boot.
    client("ec2").get_waiter("instance_terminated").wait(
        InstanceIds=[orphan], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    measured(repair())
    assert len(instances()) == len(ROLES)


@pytest.mark.fault(
    "a machine reboots",
    sees="GitLab, the registry or the runner is unavailable until it is up again",
    heals="nothing to do: everything starts automatically",
)
@pytest.mark.parametrize("role", ROLES)
def test_a_reboot_while_idle(role, image, measured):
    started = time.monotonic()
    reboot(role)
    acceptance_passes()
    measured(time.monotonic() - started, role)


@pytest.mark.fault(
    "a machine reboots during a push",
    sees="the push fails, or waits and continues",
    heals="nothing to do: the user repeats the push",
)
@pytest.mark.parametrize("role", ROLES)
def test_a_reboot_during_a_push(role, image, outputs, measured):
    push_for_a_while(outputs)
    started = time.monotonic()
    reboot(role)
    acceptance_passes()
    measured(time.monotonic() - started, role)
    kept.pull(kept.push("after-the-reboot"))


def push_for_a_while(outputs) -> None:
    """Start a push that takes some seconds, in the background."""
    kept.push("before-the-push")
    name = f"{outputs['registryHost']}/{kept.PROJECT}/large:1"
    must("runner", f"head -c 400M /dev/urandom >/var/tmp/large && tar -C /var/tmp -c large | docker import - {name}")
    must("runner", f"systemd-run --unit=large-push --collect docker --config /root/.docker push {name}")
    eventually(lambda: "ctive: active" in on("runner", "systemctl status large-push").output, interval=0.2)
    time.sleep(1)


@pytest.mark.fault(
    "the registry's container dies during a push",
    sees="the push waits and continues, or fails",
    heals="nothing to do: Docker restarts it",
)
def test_a_registry_killed_during_a_push(image, outputs, measured):
    push_for_a_while(outputs)
    started = time.monotonic()
    must("registry", "kill -KILL $(docker inspect --format '{{.State.Pid}}' registry)")
    acceptance_passes()
    measured(time.monotonic() - started)
    kept.pull(kept.push("after-the-kill"))


@pytest.mark.fault(
    "the Docker daemon is restarted",
    sees="the registry is unavailable for seconds; running jobs on the runner's machine fail",
    heals="nothing to do",
)
@pytest.mark.parametrize("role", ["registry", "runner"])
def test_a_restarted_docker(role, image, measured):
    started = time.monotonic()
    must(role, "systemctl restart docker")
    acceptance_passes()
    measured(time.monotonic() - started, role)


@pytest.mark.fault(
    "a data volume is detached behind Pulumi's back",
    sees="input/output errors on that machine; `up` detects that the attachment is missing and recreates it",
    heals="`pulumi up`: the machine mounts the volume when it is attached again, and restarts the services that use it",
)
@pytest.mark.parametrize("role", ["server", "registry"])
def test_a_detached_volume(role, image, measured):
    ec2 = client("ec2")
    [volume] = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [f"{role}-data-{stack.STACK}"]}])["Volumes"]
    ec2.detach_volume(VolumeId=volume["VolumeId"], Force=True)
    eventually(lambda: ec2.describe_volumes(VolumeIds=[volume["VolumeId"]])["Volumes"][0]["State"] == "available")
    started = time.monotonic()
    repair()
    acceptance_passes()
    measured(time.monotonic() - started, role)


@pytest.mark.fault(
    "AWS answers a 500 and throttles",
    sees="nothing: the provider retries",
    heals="nothing to do",
)
def test_a13_an_error_and_a_throttle_of_aws(image, measured):
    client("ec2").terminate_instances(InstanceIds=[instance_id("runner")])
    eventually(lambda: len(instances()) == len(ROLES) - 1)
    for action in ("DescribeInstances", "RunInstances", "DescribeTargetHealth"):
        faults.inject(action, kind="throttle")
        faults.inject(action, kind="error")
    measured(repair())
    assert all(served for served in faults.served().values())
    faults.clear()
    assert len(instances()) == len(ROLES)


@pytest.mark.fault(
    "an IAM profile is usable only seconds after it was made",
    sees="nothing: the provider retries",
    heals="nothing to do",
)
def test_a13_a_late_profile(image, measured):
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},'
    policy += '"Action":"sts:AssumeRole"}]}'
    with_profile = {
        "__main__.py": [
            (
                "machines = create_machines(",
                (
                    "import pulumi_aws as aws\n"
                    "from components.machines import image_id\n"
                    f"role = aws.iam.Role('late', assume_role_policy='{policy}')\n"
                    "profile = aws.iam.InstanceProfile('late', role=role.name)\n"
                    "aws.ec2.Instance('late', ami=image_id(settings), instance_type='t3.micro',\n"
                    "    subnet_id=network.subnet.id, iam_instance_profile=profile.name)\n"
                    "machines = create_machines("
                ),
            )
        ]
    }
    with changed_program(with_profile) as program:
        done = up(program=program)
    assert done.status == 0, done.output
    measured(done.seconds)
    repair()
    assert len(instances()) == len(ROLES)


@pytest.mark.fault(
    "a package repository is down",
    sees="`runner-install-runner failed` with dnf's error message",
    heals="`pulumi up`, once the repository is available again",
)
def test_a_package_repository_that_is_down(image, measured):
    front.stop()
    try:
        must("runner", "dnf clean all && rpm --erase gitlab-runner gitlab-runner-helper-images")
        down = up("--replace", step("runner-install-runner"))
    finally:
        front.start()
    assert down.status != 0
    assert "install_runner failed" in down.output
    done = up("--replace", step("runner-configure-runner"))
    assert done.status == 0, done.output
    measured(done.seconds)


@pytest.mark.fault(
    "a package repository offers another key",
    sees="`runner-add-runner-repository failed`, with that key's fingerprint and those of `runnerPackageKeys`",
    heals="nothing, intentionally, until [the vendor confirms](#a-vendors-signing-key) the key",
)
def test_a_package_repository_that_offers_another_key(image):
    offered, other = (packages.WEB_ROOT / key for key in (packages.RUNNER_KEY, packages.DOCKER_KEY))
    keys = "/etc/pki/rpm-gpg/RPM-GPG-KEY-runner_gitlab-runner"
    own, before = offered.read_text(), must("runner", f"cat {keys}")
    offered.write_text(other.read_text())
    try:
        refused = up("--replace", step("runner-add-runner-repository"))
    finally:
        offered.write_text(own)
    assert refused.status != 0
    assert "add_runner_repository failed" in refused.output
    [stranger] = packages.settings()["dockerPackageKeys"]
    assert stranger in refused.output
    assert f"runnerPackageKeys contains {' '.join(packages.settings()['runnerPackageKeys'])}" in refused.output
    assert must("runner", f"cat {keys}") == before
    repair()


@pytest.mark.fault(
    "a data volume is full",
    sees="`push failed`, with the message that the registry's data volume is full",
    heals="a larger `registryDataVolumeSize`, then `pulumi up`",
)
def test_a_full_volume(image, measured):
    full_volume.fill()
    full = repeat_acceptance()
    assert full.status != 0
    assert "push failed" in full.output
    assert "data volume is full" in full.output
    stack.configure("registryDataVolumeSize", "12")
    measured(repair())
    full_volume.empty()


@pytest.mark.fault(
    "`amiId` names no image",
    sees="`amiId: AWS did not find 'ami-...' in this region`; nothing was changed",
    heals="the correct id, then `pulumi up`",
)
def test_a_wrong_image(image, measured):
    stack.configure("amiId", "ami-0badbadbadbadbad0")
    wrong = up()
    assert wrong.status != 0
    assert "amiId: AWS did not find 'ami-0badbadbadbadbad0'" in wrong.output
    stack.configure("amiId", None)
    measured(repair())


@pytest.mark.fault(
    "two `up`s at once",
    sees="the second: `the stack is currently locked by 1 lock(s)`",
    heals="nothing to do: the first continues",
)
def test_two_at_once(watched, measured):
    first = lingering("runner-install-docker")
    second = up()
    assert second.status != 0
    assert "currently locked by 1 lock" in second.output
    done = first.finish()
    assert done.status == 0, done.output
    measured(repair())


@pytest.mark.fault(
    "GitLab's clock is two minutes off",
    sees="`token accepted failed`, with the difference of the clocks in seconds",
    heals="set the correct time (`chronyc tracking`), then `pulumi up`",
)
def test_a_clock_that_is_off(image, measured):
    must("server", "mkdir -p /run/lab && echo 120 >/run/lab/clock-offset && chmod 644 /run/lab/clock-offset")
    wrong = repeat_acceptance()
    assert wrong.status != 0
    assert "token accepted failed" in wrong.output
    assert re.search("Clock: the registry is 1[12]. s behind GitLab", wrong.output)
    must("server", "rm /run/lab/clock-offset")
    measured(repair())


@pytest.mark.fault(
    "a machine shows another SSH host key",
    sees="`host key mismatch`, and nothing is sent to it",
    heals="nothing, intentionally: investigate which host answers there; if you replaced the machine yourself, "
    "replace it with Pulumi",
)
def test_a14_another_host_key(image, measured):
    key, again = "/etc/ssh/ssh_host_ed25519_key", "systemctl restart ssh*"
    must("runner", f"cp -a {key} /root/kept && rm {key}* && ssh-keygen -q -t ed25519 -N '' -f {key} && {again}")
    wrong = repeat_acceptance()
    assert wrong.status != 0
    assert "mismatch" in wrong.output
    with changed_program(ANOTHER_VERSION) as program:
        newer = up(program=program)
    assert newer.status != 0
    assert re.search("runner-prepare-host.*host key mismatch", newer.output, re.DOTALL)
    # The display also has lines without a verb, of resources that stay as they are.
    asked = re.search(r"Command\s+\w+-host-key\s+\**(creat|updat|replac|delet)", newer.output)
    assert not asked, "a known machine's host key was read again"
    must("runner", f"mv /root/kept {key} && ssh-keygen -y -f {key} >{key}.pub && {again}")
    measured(repair())


def test_a_step_that_outlasts_its_limit_is_finished_and_the_next_waits_for_it(outputs):
    def run(limit: int, text: str) -> Finished:
        return on("runner", step_command("of_the_test", limit, []), stdin=step_input(text, []))

    late = run(2, "sleep 6; echo done >/root/of-the-test")
    assert late.status == 75
    assert "of_the_test is still running on" in late.output
    assert on("runner", "test -e /root/of-the-test").status != 0
    assert run(30, "cat /root/of-the-test >&3; rm /root/of-the-test").output == "done\n"
