"""The registry's storage: registry-tree on its machine, and garbage collection during pushes and with interruptions."""

import json
import re
import time
from collections.abc import Iterator

import pytest

from lab import stack
from tests.e2e import kept
from tests.e2e.operations import client, eventually, must, on, repair, up
from tests.e2e.test_doctor import examine

LINGER = 15
"""Seconds that a collection waits before it frees anything, if a test requests it: long enough to interrupt it."""

LINGERING = rf"s/^    docker exec /    touch \/run\/lingers; sleep {LINGER}; rm \/run\/lingers\n&/"

PUSHER = """\
cd /var/tmp
while sleep 0.2; do
    head -c 4096 /dev/urandom >pushed
    tar -c pushed | docker import - {image} >/dev/null
    said=$(docker push {image} 2>&1)
    echo "$? $(tr '\\n' ' ' <<<"$said")"
done >/var/tmp/pushes
"""


@pytest.fixture
def lingering(outputs) -> Iterator[None]:
    """Make collections have garbage to free, and wait before they free it."""
    must("registry", f"sed -i '{LINGERING}' /usr/local/sbin/collect-garbage; rm -f /run/lingers")
    orphan()
    yield
    must("registry", r"sed -i '/touch .run.lingers/d' /usr/local/sbin/collect-garbage")


def orphan() -> None:
    """Create a blob without a repository, as an interrupted push does."""
    folder = "/srv/registry/images/docker/registry/v2/blobs/sha256"
    make = f"head -c 1000000 /dev/urandom >{folder}/orphan; sum=$(sha256sum {folder}/orphan | cut -c 1-64)"
    place = f"{folder}/${{sum:0:2}}/$sum"
    must("registry", f"{make}; mkdir -p {place} && mv {folder}/orphan {place}/data && chown -R 1000:1000 {folder}")


def blobs() -> set[str]:
    """Digests of the blobs on the registry's volume."""
    found = must("registry", "find /srv/registry/images -path '*/blobs/sha256/*/data'")
    return {f"sha256:{path.split('/')[-2]}" for path in found.splitlines()}


def begin() -> None:
    """Start a collection, and return while it waits."""
    must("registry", "systemctl start --no-block collect-garbage")
    eventually(lambda: on("registry", "test -e /run/lingers").status == 0, interval=0.3)


def ended() -> bool:
    return on("registry", "systemctl is-active collect-garbage").output.strip() in ("inactive", "failed")


def results() -> list[str]:
    """The output of collections in the journal."""
    return must("registry", "journalctl --quiet --output cat --identifier collect-garbage").splitlines()


def serves() -> list[str]:
    return must("registry", "docker ps --all --format '{{.Names}} {{.State}}'").splitlines()


def test_registry_tree_shows_the_image_of_the_proof_as_the_push_reported_it(outputs):
    _, image, pushed = must("registry", "grep '^pushed: ' /var/log/gitlab-stack/find_image.log").split()
    shown = json.loads(must("registry", f"registry-tree show {image} --json"))
    assert shown["digest"] == pushed
    assert {row["role"] for row in shown["contents"]} == {"manifest", "config", "layer"}
    assert must("registry", "registry-tree verify").endswith("\nno problems found")


def test_garbage_is_collected_while_others_push_refused_cleanly_and_then_accepted(outputs, lingering):
    before = kept.push("before-the-collection")
    image = f"{outputs['registryHost']}/{kept.PROJECT}/others:latest"
    must("runner", "cat >/run/pusher", stdin=PUSHER.format(image=image))
    must("runner", "systemd-run --quiet --unit pusher --setenv HOME=/root bash /run/pusher")

    def pushes() -> list[str]:
        return must("runner", "cat /var/tmp/pushes").splitlines()

    try:
        eventually(lambda: any(push.startswith("0 ") for push in pushes()))
        begin()
        eventually(lambda: any("405" in push for push in pushes()))
        kept.pull(before)
        there = blobs()
        predicted = json.loads(must("registry", "registry-tree reclaim --json"))["blobs"]
        eventually(ended)
        assert there - blobs() == {row["digest"] for row in predicted} != set()
        after = len(pushes())
        eventually(lambda: len(pushes()) > after + 3)
    finally:
        must("runner", "systemctl stop pusher")
    # The first push may have started while the registry was restarting.
    assert [push[0] for push in pushes()[after + 1 :]] == ["0"] * len(pushes()[after + 1 :])
    expected = r"garbage collection: freed \S+, all remaining files are intact; pushes are accepted"
    assert re.fullmatch(expected, results()[-1])
    assert must("registry", "registry-tree verify").endswith("\nno problems found")
    kept.pull(before)


def test_the_registrys_process_has_no_rights_and_writes_nothing_but_its_volume(outputs):
    asked = "{{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.ReadonlyRootfs}}"
    assert must("registry", f"docker inspect --format '{asked}' registry") == "[ALL] [no-new-privileges] true"
    status = must("registry", "cat /proc/$(docker inspect --format '{{.State.Pid}}' registry)/status")
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert on("registry", "docker exec --user 0 registry sh -c 'echo x >/bin/registry'").status != 0
    must("registry", "docker exec registry sh -c 'echo x >/tmp/x && rm /tmp/x'")


@pytest.mark.fault(
    "a garbage collection is killed",
    sees="`interrupted while freeing` in `journalctl -u collect-garbage`; pushes are accepted again",
    heals="nothing to do: the next collection frees the rest",
)
def test_a_collection_killed_in_the_middle_leaves_a_registry_that_takes_pushes(lingering, measured):
    begin()
    assert serves() == ["registry-read-only running", "registry exited"]
    must("registry", "systemctl kill --kill-who all --signal KILL collect-garbage")
    seconds = eventually(ended)
    assert serves() == ["registry running"]
    assert "interrupted while freeing" in results()[-1]
    assert "pushes are accepted (signal, see /var/log/gitlab-stack/collect-garbage.log)" in results()[-1]
    kept.pull(kept.push("after-the-kill"))
    measured(seconds)


@pytest.mark.long
@pytest.mark.fault(
    "the registry's machine reboots, or loses its power, while garbage is collected",
    sees="the registry is unavailable until it is up again, and then accepts pushes",
    heals="nothing to do: the next collection frees the rest",
)
@pytest.mark.parametrize("cut", ["reboot", "power cut"])
def test_a_reboot_in_the_middle_of_a_collection_leaves_a_registry_that_takes_pushes(outputs, lingering, measured, cut):
    begin()
    started = time.monotonic()
    if cut == "reboot":
        client("ec2").reboot_instances(InstanceIds=[outputs["instanceIds"]["registry"]])
    else:
        on("registry", "systemctl reboot --force --force")
    eventually(lambda: on("registry", "test ! -e /run/lingers").status == 0)
    eventually(lambda: on("runner", f"curl -fsS https://{outputs['registryHost']}/").status == 0)
    assert serves() == ["registry running"]
    kept.pull(kept.push("after-the-reboot"))
    measured(time.monotonic() - started, cut)
    assert must("registry", "registry-tree verify").endswith("\nno problems found")


@pytest.mark.long
def test_the_timer_follows_the_settings_and_an_up_waits_for_a_collection(outputs, lingering):
    stack.configure("registryGarbageCollection", "Sun 03:00")
    try:
        begin()
        repair()
        assert "all remaining files are intact" in results()[-1]
        assert must("registry", "systemctl is-enabled collect-garbage.timer") == "enabled"
        assert " 03:00:00 " in must("registry", "systemctl list-timers --no-legend collect-garbage.timer")
    finally:
        stack.configure("registryGarbageCollection", None)
    repair()
    assert on("registry", "systemctl cat collect-garbage.timer").status != 0


@pytest.mark.long
def test_a_registry_that_does_not_start_gives_way_to_the_former_one(outputs):
    """So the setting can be taken back: Pulumi keeps the former inputs of the step, which does not run again then."""
    image = kept.push("before-the-wrong-registry")
    stack.configure("registryImage", "docker.io/library/alpine:3.23")
    try:
        failed = up()
    finally:
        stack.configure("registryImage", None)
    assert failed.status != 0
    assert "so the former one runs again" in failed.output
    taken_back = up()
    assert taken_back.status == 0, taken_back.output
    eventually(lambda: examine("--quick").status == 0)  # once the load balancer has noticed
    kept.pull(image)
