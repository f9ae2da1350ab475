"""The doctor: what it asks of the machines, what it concludes, and what it never says. An ssh plays the machines."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import doctor
from configuration import hops
from configuration.flows import MACHINES, Place
from tests.conftest import openssh_pair
from tests.test_hops import STACK

ROOT = Path(doctor.__file__).parent
PRIVATE_KEY = openssh_pair()[1]
ADDRESSES = {Place.SERVER: "192.0.2.1", Place.REGISTRY: "192.0.2.2", Place.RUNNER: "192.0.2.3"}
PUSHED = "gitlab-stack/acceptance/acceptance:7@sha256:" + "ab" * 32

SSH = """\
#!/bin/bash
# Plays the machines: $folder/VIEW is what is printed, VIEW.status, VIEW.said and VIEW.seconds how it ends.
folder={folder}
printf '%s\\n' "$@" >>"$folder/arguments"
cp "${{4}}" "$folder/key" && stat -c %a "${{4}}" >"$folder/mode"
for word in "$@"; do case $word in UserKnownHostsFile=*) cp "${{word#*=}}" "$folder/known_hosts" ;; esac; done
address=${{@: -2:1}} command=${{@: -1}}
case $command in
    *find_image*) view=volume ;;
    *) view=${{command##* }} ;;
esac
[ ! -e "$folder/${{address#*@}}" ] || {{ cat "$folder/${{address#*@}}" >&2; exit 255; }}
sleep "$(cat "$folder/$view.seconds" 2>/dev/null || echo 0)"
if [ "$view" = pipeline ]; then
    read -r size && head -c "$size" >/dev/null && read -r && read -r
    if ! read -r go; then echo '{{"unseen": "nothing was to be started"}}'; exit 2; fi
    base64 -d <<<"$go" >"$folder/go"
fi
cat "$folder/$view" 2>/dev/null
cat "$folder/$view.said" >&2 2>/dev/null
exit "$(cat "$folder/$view.status" 2>/dev/null || echo 0)"
"""


def line(hop: str, state: str = "ok", detail: str = "") -> str:
    return json.dumps({"hop": hop, "state": state, "seconds": 0.5, "detail": detail}) + "\n"


class Stack:
    """A played stack: well, but for what a test does to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("server", "".join(line(hop.id) for hop in hops.seen_from(Place.SERVER)))
        self.put("runner", "".join(line(hop.id) for hop in hops.seen_from(Place.RUNNER)))
        self.put("registry", json.dumps({"facts": {"issuer": "known"}}) + "\n")
        seen = [hop.id for hop in hops.seen_by_pipeline() if hop.id != "online"]
        self.put("pipeline", "".join(line(hop, detail=PUSHED if hop == "push" else "") for hop in seen))
        self.put("volume", line("volume"))
        self.inspection: dict[str, Any] = {
            "stack": vars(STACK),
            "user": "ec2-user",
            "privateKey": PRIVATE_KEY,
            "machines": {place: {"address": ADDRESSES[place], "hostKey": f"ssh-ed25519 {place}"} for place in MACHINES},
            "acceptanceImage": "curl:1",
        }

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def breaks(self, view: str, hop: str, detail: str = "it is seen to be broken") -> None:
        """The walk ends with this hop."""
        before = (self.folder / view).read_text().partition(f'{{"hop": "{hop}"')[0]
        self.put(view, before + line(hop, "broken", detail))
        self.put(f"{view}.status", "1")

    def silent(self, place: Place, said: str = "ssh: connect to host: Connection timed out") -> None:
        self.put(ADDRESSES[place], said + "\n")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def played(tmp_path, monkeypatch) -> Stack:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(SSH.format(folder=tmp_path))
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return Stack(tmp_path)


class Examined:
    def __init__(self, done: subprocess.CompletedProcess[str], seconds: float) -> None:
        self.status = done.returncode
        self.out, self.said = done.stdout, done.stderr
        self.seconds = seconds

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    def states(self, state: str) -> list[str]:
        return [hop["hop"] for hop in self.told["hops"] if hop["state"] == state]

    def detail(self, hop: str) -> str:
        return str(next(seen["detail"] for seen in self.told["hops"] if seen["hop"] == hop))


@pytest.fixture
def examine(played) -> Callable[..., Examined]:
    def run(*options: str, text: str | None = None) -> Examined:
        outputs = json.dumps({"externalUrl": "http://x", "inspection": played.inspection})
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, ROOT / "doctor.py", *options],
            input=outputs if text is None else text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert PRIVATE_KEY.splitlines()[1] not in done.stdout + done.stderr
        return Examined(done, time.monotonic() - started)

    return run


def test_a_stack_that_is_well_is_found_so_hop_by_hop(examine, played):
    found = examine()
    assert (found.status, found.said) == (0, "")
    assert re.findall(r"^✓ (.+?)  +0\.50 s$", found.out, re.MULTILINE) == [hop.title for hop in hops.HOPS]
    assert "Every hop is well." in found.out
    assert json.loads(played.read("go")) == {"facts": {"issuer": "known"}, "pipeline": True}


def test_machines_are_reached_as_the_user_of_the_stack_and_held_to_their_host_keys(examine, played):
    examine()
    arguments = played.read("arguments").splitlines()
    assert {f"ec2-user@{address}" for address in ADDRESSES.values()} <= set(arguments)
    assert "StrictHostKeyChecking=yes" in arguments
    assert "BatchMode=yes" in arguments
    assert played.read("known_hosts").splitlines() == [f"{ADDRESSES[place]} ssh-ed25519 {place}" for place in MACHINES]
    assert played.read("key") == PRIVATE_KEY
    assert played.read("mode") == "600\n"
    assert not Path(arguments[arguments.index("-i") + 1]).exists()
    assert "look.sh" not in arguments
    assert any("flock --shared --nonblock" in argument for argument in arguments)


@pytest.mark.parametrize(
    ("view", "hop"),
    [
        *(("server", hop.id) for hop in hops.seen_from(Place.SERVER)),
        *(("runner", hop.id) for hop in hops.seen_from(Place.RUNNER)),
        *(("pipeline", hop.id) for hop in hops.seen_by_pipeline()),
    ],
)
def test_the_hop_that_is_broken_is_named_with_its_message_and_remedy(examine, played, view, hop):
    if (view, hop) == ("pipeline", "online"):
        played.put("pipeline", line("accepted") + line("online", "broken", "paused"))
    else:
        played.breaks(view, hop)
    found = examine("--json")
    assert found.status == 1
    assert found.told["verdict"] == "broken"
    assert found.told["broken"] == {
        "hop": hop,
        "message": hops.BY_ID[hop].broken,
        "remedy": hops.BY_ID[hop].remedy,
    }
    assert found.states("broken") == [hop]
    text = examine()
    assert f"✗ {hops.BY_ID[hop].title}" in text.out
    assert f"What to do: {hops.BY_ID[hop].remedy}" in text.out


def test_of_several_the_first_in_order_is_named_and_what_hangs_on_it_is_not_looked_at(examine, played):
    played.breaks("server", "nginx")
    played.breaks("runner", "sign-in", "answers 502")
    found = examine("--json")
    assert found.told["broken"]["hop"] == "nginx"
    assert found.states("broken") == ["nginx", "sign-in"]
    assert found.detail("readiness") == "not looked at because this is broken: nginx"
    assert found.detail("pull") == "not looked at because this is broken: nginx"
    assert not (played.folder / "go").exists()


def test_a_hop_that_was_left_to_the_broken_one_says_why(examine, played):
    left = line("target", "left", "nginx does not answer, so no health check can be seen")
    played.put("server", left + line("nginx", "broken", "Connection refused"))
    found = examine("--json")
    assert found.told["broken"]["hop"] == "nginx"
    assert found.detail("target") == "not looked at: nginx does not answer, so no health check can be seen"


def test_a_token_is_looked_at_although_the_runner_behind_it_is_broken_and_no_job_is_started(examine, played):
    played.breaks("runner", "process")
    played.put("pipeline", line("accepted", "broken", "Key: another"))
    played.put("pipeline.status", "1")
    found = examine("--json")
    assert json.loads(played.read("go"))["pipeline"] is False
    assert found.told["broken"]["hop"] == "accepted"


def test_an_image_that_is_not_on_the_disk_is_said_so_with_the_last_word_of_who_looked(examine, played):
    played.put("volume", "")
    played.put("volume.said", "group/app:1\nthe pushed image is not there\n")
    played.put("volume.status", "1")
    found = examine("--json")
    assert found.told["broken"]["hop"] == "volume"
    assert found.detail("volume") == "the pushed image is not there"


@pytest.mark.parametrize(
    ("place", "hop"), [(Place.SERVER, "target"), (Place.REGISTRY, "registry"), (Place.RUNNER, "process")]
)
def test_a_machine_that_is_silent_is_the_broken_hop_it_stands_for(examine, played, place, hop):
    played.silent(place)
    if place is Place.REGISTRY:
        played.breaks("runner", "registry", "answers 503")
    found = examine("--json")
    assert found.status == 1
    assert found.states("broken") == [hop]
    assert found.detail(hop).startswith(f"The {place} machine at {ADDRESSES[place]} does not answer by SSH")


def test_when_no_machine_answers_it_is_the_way_to_them_that_is_missing(examine, played):
    for place in MACHINES:
        played.silent(place)
    found = examine("--json")
    assert (found.status, found.told["verdict"]) == (2, "could not look")
    assert found.states("broken") == []
    assert "does not answer by SSH" in found.detail("name")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Host key verification failed.", "shows another host key than at its first contact; nothing was sent to it"),
        ("ec2-user@192.0.2.1: Permission denied (publickey).", "does not let the key of the stack's settings in"),
    ],
)
def test_a_machine_that_lets_nobody_in_is_no_hop_that_is_broken(examine, played, said, told):
    played.silent(Place.SERVER, said)
    found = examine("--json")
    assert found.status == 2
    assert told in found.detail("nginx")


def test_while_a_step_is_at_work_it_says_so_and_nothing_else(examine, played):
    for view in ("server", "pipeline"):
        played.put(view, "")
        played.put(f"{view}.status", str(doctor.LOCKED))
    found = examine("--json")
    assert found.status == 2
    for hop in ("target", "accepted", "pull"):
        assert "a step of pulumi up is at work on the server machine" in found.detail(hop)


def test_what_was_not_looked_at_in_time_is_never_well(examine, played):
    played.put("runner.seconds", "30")
    found = examine("--json", "--within", "2")
    assert found.status == 2
    assert found.seconds < 5
    assert found.detail("name") == "not looked at: no answer in time"
    played.put("runner.seconds", "0")
    played.put("pipeline", line("accepted") + line("taken") + json.dumps({"unseen": "there was no time left"}) + "\n")
    played.put("pipeline.status", "2")
    found = examine("--json")
    assert found.status == 2
    assert found.detail("pull") == "not looked at: there was no time left"


def test_machines_are_looked_from_at_the_same_time(examine, played):
    for view in MACHINES:
        played.put(f"{view}.seconds", "1")
    assert examine().seconds < 2.9


def test_without_the_pipeline_what_needs_it_is_left_out_and_the_rest_may_be_well(examine, played):
    played.inspection["acceptanceImage"] = None
    found = examine("--json")
    assert found.status == 0
    assert found.states("off") == list(hops.NEEDS_A_TOKEN)
    assert not any("pipeline" in argument.split() for argument in played.read("arguments").splitlines())


def test_a_quick_look_starts_no_pipeline_and_says_that_it_was_left_out(examine, played):
    found = examine("--json", "--quick")
    assert (found.status, found.told["verdict"]) == (0, "well")
    assert found.states("off") == list(hops.NEEDS_A_TOKEN)
    assert found.detail("pull") == "needs the pipeline, which --quick leaves out"
    assert not any("pipeline" in argument.split() for argument in played.read("arguments").splitlines())
    assert "Every hop that was looked at is well." in examine("--quick").out
    played.breaks("runner", "sign-in")
    assert examine("--quick").status == 1


def test_a_full_look_has_time_for_gitlabs_console_and_two_jobs_and_a_quick_one_ends_soon(examine, played):
    examine()
    examine("--quick")
    limits = [int(limit) for limit in re.findall(r" walk_hops (\d+) ", played.read("arguments"))]
    assert min(limits) <= doctor.QUICK < doctor.WITHIN - 10 < max(limits) <= doctor.WITHIN
    for text in ("README.md", "docs/operations.md"):
        told = (ROOT / text).read_text()
        assert f"{doctor.WITHIN} seconds" in told, text
        assert re.search(rf"--quick.*{doctor.QUICK} seconds|{doctor.QUICK} seconds.*--quick", told), text


@pytest.mark.parametrize("view", ["server", "pipeline", "volume"])
def test_an_error_that_nobody_foresaw_is_one_line_and_never_a_broken_stack(examine, played, view):
    played.put(view, "{cut off")
    played.put(f"{view}.status", "1")
    found = examine()
    assert (found.status, found.out) == (2, "")
    assert re.fullmatch(r"doctor: could not look: JSONDecodeError: .+\n", found.said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no stack output `inspection`"),
        ("{}", "no stack output `inspection`"),
        ('{"inspection": "[secret]"}', "add --show-secrets"),
    ],
)
def test_without_the_stacks_outputs_it_says_what_is_missing(examine, text, message):
    found = examine(text=text)
    assert found.status == 2
    assert message in found.said
