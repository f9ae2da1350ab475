"""The doctor, with a stub of ssh: its requests to the machines, its conclusions, and that it prints no secrets."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import unicodedata
import unittest.mock
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import doctor
import doctor_ssh
from configuration import checks, gitlab_settings
from configuration.flows import MACHINES, Place
from tests.check_runs import ENDPOINTS, run_here
from tests.conftest import openssh_pair

ROOT = Path(doctor.__file__).parent
PRIVATE_KEY = openssh_pair()[1]
ADDRESSES = {Place.SERVER: "192.0.2.1", Place.REGISTRY: "192.0.2.2", Place.RUNNER: "192.0.2.3"}
ENDS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, None]
PUSHED = "gitlab-stack/acceptance/acceptance:7@sha256:" + "ab" * 32

SSH = """\
#!/bin/bash
# Stub for the machines: prints $folder/VIEW after VIEW.seconds, with VIEW.stderr on stderr; exits with VIEW.status.
# If there is a file `together`, each that has seconds first waits until all machines are being checked.
# Keeps the key as VIEW.key, and its mode if there is a file `mode`. Mostly builtin commands, since the tests run it
# hundreds of times.
folder={folder}
show() {{ local text; [ ! -e "$1" ] || {{ IFS= read -rd '' text <"$1"; printf %s "$text"; }}; }}
number() {{ local found=0; [ ! -e "$1" ] || read -r found <"$1"; answer=$found; }}
printf '%s\\n' "$@" >>"$folder/arguments"
for word in "$@"; do case $word in UserKnownHostsFile=*) show "${{word#*=}}" >"$folder/known_hosts" ;; esac; done
address=${{@: -2:1}} command=${{@: -1}}
case $command in
    *find_image*) view=volume ;;
    *) view=${{command##* }} ;;
esac
show "${{4}}" >"$folder/$view.key"
[ ! -e "$folder/mode" ] || stat -L -c %a "${{4}}" >"$folder/mode"
[ ! -e "$folder/${{address#*@}}" ] || {{ show "$folder/${{address#*@}}" >&2; exit 255; }}
if [ -e "$folder/$view.seconds" ]; then
    read -r  # the doctor has recorded this process before it sends input
    number "$folder/$view.seconds"
    echo "$$" >"$folder/$view.sleeps"
    if [ -e "$folder/together" ]; then
        echo >"$folder/$view.began"
        until began=("$folder"/*.began) && [ "${{#began[@]}}" = {machines} ]; do sleep 0.01; done
    fi
    sleep "$answer"
    rm "$folder/$view.sleeps"
fi
if [ "$view" = pipeline ]; then
    read -r size && head -c "$size" >/dev/null && read -r && read -r
    if ! read -r go; then echo '{{"error": "standard input ended before the start message"}}'; exit 2; fi
    printf %s "$go" >"$folder/go"
fi
show "$folder/$view"
show "$folder/$view.stderr" >&2
number "$folder/$view.status"
exit "$answer"
"""


def line(check: str, state: str = "ok", detail: str = "") -> str:
    return json.dumps({"check": check, "state": state, "seconds": 0.5, "detail": detail}) + "\n"


class Stack:
    """A stub stack, which is healthy unless a test breaks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("server", "".join(line(check.id) for check in checks.checks_from(Place.SERVER)))
        self.put("runner", "".join(line(check.id) for check in checks.checks_from(Place.RUNNER)))
        facts = json.dumps({"facts": {"issuer": "known"}}) + "\n"
        self.put("registry", facts + "".join(line(check.id) for check in checks.checks_from(Place.REGISTRY)))
        seen = [check.id for check in checks.checks_by_pipeline() if check.id != "online"]
        self.put("pipeline", "".join(line(check, detail=PUSHED if check == "push" else "") for check in seen))
        self.put("volume", line("volume"))
        self.inspection: dict[str, Any] = {
            "stack": vars(ENDPOINTS),
            "user": "ec2-user",
            "privateKey": PRIVATE_KEY,
            "machines": {place: {"address": ADDRESSES[place], "hostKey": f"ssh-ed25519 {place}"} for place in MACHINES},
            "acceptanceImage": "curl:1",
            "acceptanceTags": [],
            "backup": True,
        }

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def breaks(self, view: str, check: str, detail: str = "it does not work") -> None:
        """Make this check fail and end the run."""
        before = (self.folder / view).read_text().partition(f'{{"check": "{check}"')[0]
        self.put(view, before + line(check, "broken", detail))
        self.put(f"{view}.status", "1")

    def silent(self, place: Place, said: str = "ssh: connect to host: Connection timed out") -> None:
        self.put(ADDRESSES[place], said + "\n")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def started(self) -> Any:
        """The message that starts the pipeline."""
        return json.loads(base64.b64decode(self.read("go")))


@pytest.fixture
def played(tmp_path, monkeypatch) -> Stack:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(SSH.format(folder=tmp_path, machines=len(MACHINES)))
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return Stack(tmp_path)


@dataclass
class Examined:
    status: int
    out: str
    stderr: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    def states(self, state: str) -> list[str]:
        return [check["check"] for check in self.report["checks"] if check["state"] == state]

    def detail(self, check: str) -> str:
        return str(next(seen["detail"] for seen in self.report["checks"] if seen["check"] == check))


Examine = Callable[..., Examined]


def as_program(options: Sequence[str], text: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, ROOT / "doctor.py", *options], input=text, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def in_this_process(options: Sequence[str], text: str) -> tuple[int, str, str]:
    """Like the program, but without its start, because there are many cases."""
    with unittest.mock.patch.object(sys, "argv", ["doctor.py", *options]):
        result = run_here(doctor.main, text)
    for descriptor in Path("/proc/self/fd").glob("*"):
        if "memfd:doctor" in os.path.realpath(descriptor):
            os.close(int(descriptor.name))
    return result


def examination(played: Stack, run: Callable[[Sequence[str], str], tuple[int, str, str]]) -> Examine:
    def examine(*options: str, text: str | None = None) -> Examined:
        outputs = json.dumps({"externalUrl": "http://x", "inspection": played.inspection})
        started = time.monotonic()
        status, out, errors = run(options, outputs if text is None else text)
        assert PRIVATE_KEY.splitlines()[1] not in out + errors
        return Examined(status, out, errors, time.monotonic() - started)

    return examine


@pytest.fixture
def examine(played) -> Examine:
    """Run the doctor in this process."""
    return examination(played, in_this_process)


@pytest.fixture
def examine_as_program(played) -> Examine:
    """Run the doctor as a program, for what depends on its process."""
    return examination(played, as_program)


FILES_INSTEAD_OF_MEMORY = """
import runpy, subprocess, sys, tempfile
sys.platform = "darwin"
runpy.run_path("doctor.py", run_name="__main__")
"""


IN_MEMORY, IN_FILES = ("doctor.py",), ("-c", FILES_INSTEAD_OF_MEMORY)


@pytest.mark.parametrize(
    ("options", "end"),
    [*((IN_MEMORY, end) for end in [*ENDS, signal.SIGKILL]), *((IN_FILES, end) for end in ENDS)],
)
def test_however_the_doctor_ends_it_leaves_no_key_behind_and_nothing_running(played, tmp_path, options, end):
    folder = tmp_path / "temporary"
    folder.mkdir()
    for place in MACHINES if end else ():
        played.put(f"{place}.seconds", "60")
    doctor = subprocess.Popen(
        [sys.executable, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert doctor.stdin
    doctor.stdin.write(json.dumps({"inspection": played.inspection}))
    doctor.stdin.close()
    if end:
        while len(list(tmp_path.glob("*.sleeps"))) < len(MACHINES):
            assert doctor.poll() is None, doctor.stdout
            time.sleep(0.01)
        doctor.send_signal(end)
    assert doctor.wait(20) == (-end if end else 0)
    assert played.read("server.key") == PRIVATE_KEY
    assert list(folder.iterdir()) == []
    if end is not signal.SIGKILL:
        deadline = time.monotonic() + 10
        while any(running(pid.read_text().strip()) for pid in tmp_path.glob("*.sleeps")):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def running(pid: str) -> bool:
    """Whether the process exists and is not a zombie, which has no command line."""
    command_line = Path("/proc", pid, "cmdline")
    return command_line.exists() and command_line.read_bytes() != b""


def test_without_a_private_key_in_the_stack_the_agent_is_asked_for_that_key_alone(examine, played):
    del played.inspection["privateKey"]
    played.inspection["publicKey"] = "ssh-ed25519 AAAA administrators"
    (played.folder / "bin" / "ssh-add").write_text("#!/bin/bash\necho ssh-ed25519 AAAA another\n")
    (played.folder / "bin" / "ssh-add").chmod(0o755)
    assert examine().status == 0
    assert played.read("server.key") == "ssh-ed25519 AAAA administrators\n"
    assert "IdentitiesOnly=yes" in played.read("arguments").splitlines()


def test_an_agent_that_does_not_hold_the_key_is_named_and_no_machine_asked(examine, played):
    del played.inspection["privateKey"]
    played.inspection["publicKey"] = "ssh-ed25519 AAAA administrators"
    (played.folder / "bin" / "ssh-add").write_text("#!/bin/bash\necho The agent has no identities. && exit 1\n")
    (played.folder / "bin" / "ssh-add").chmod(0o755)
    found = examine()
    assert (found.status, found.out) == (2, "")
    assert found.stderr.startswith("doctor: the SSH agent does not hold 'ssh-ed25519 AAAA administrators'")
    assert not (played.folder / "arguments").exists()


@pytest.mark.needs("ssh-keygen")
def test_openssh_takes_the_key_from_where_it_is(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a", "-f", tmp_path / "key"], check=True)
    inspection = {"machines": {}, "user": "nobody", "privateKey": (tmp_path / "key").read_text()}
    code = (
        "import json, subprocess, sys; from doctor_ssh import Machines\n"
        "key = Machines(json.load(sys.stdin), 0.0)._key\n"
        "subprocess.run(['ssh-keygen', '-y', '-f', key], check=True)"
    )
    text = json.dumps(inspection)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ((tmp_path / "key.pub").read_text(), "")


def test_a_stack_that_is_well_is_found_so_check_by_check(examine, played):
    found = examine()
    assert (found.status, found.stderr) == (0, "")
    assert re.findall(r"^✓ (.+?)  +0\.50 s$", found.out, re.MULTILINE) == [check.title for check in checks.CHECKS]
    assert "All checks passed." in found.out
    assert played.started == {"facts": {"issuer": "known"}, "pipeline": True}


@pytest.mark.parametrize(("state", "options"), [("ok", ()), ("broken", ["--json"]), ("unseen", ["--quick"])])
def test_the_doctor_in_this_process_is_the_program(examine, examine_as_program, played, options, state):
    if state == "broken":
        played.breaks("server", "nginx")
    elif state == "unseen":
        played.silent(Place.RUNNER, "Permission denied (publickey).")
    here, program = examine(*options), examine_as_program(*options)
    assert (here.status, without_time(here.out), here.stderr) == (
        program.status,
        without_time(program.out),
        program.stderr,
    )


def without_time(report: str) -> str:
    """The report without the seconds that the doctor took."""
    return re.sub(r'^(\d+ s|  "seconds": [\d.]+)$', "", report, flags=re.MULTILINE)


def test_how_old_updates_are_is_said_and_old_ones_are_a_failure_that_stops_no_other_check(examine, played):
    passing = played.read("server")
    played.put("server", passing.replace(line("server-updates"), line("server-updates", detail="3 days old")))
    assert re.search(r"^✓ updates of the server +0\.50 s  3 days old$", examine().out, re.MULTILINE)
    played.put("server", passing.replace(line("server-updates"), line("server-updates", "broken", "The timer is off.")))
    found = examine("--json")
    assert found.status == 1
    assert found.report["broken"]["check"] == "server-updates"
    assert found.states("broken") == ["server-updates"]
    assert found.states("unseen") == []
    assert played.started["pipeline"]


@pytest.mark.parametrize("before", [{"backup": False}, {}], ids=["off", "of an earlier version"])
def test_a_stack_without_backups_is_not_asked_for_them(examine, played, before):
    del played.inspection["backup"]
    played.inspection.update(before)
    for view in ("server", "registry"):
        played.put(view, played.read(view).replace(line(f"{view}-backup-fresh"), ""))
    found = examine("--json")
    assert found.status == 0
    assert [each["check"] for each in found.report["checks"]] == [
        check.id for check in checks.CHECKS if check.id not in checks.OF_BACKUPS
    ]


def test_a_gitlab_without_security_fixes_is_told_and_is_no_failure(examine, played):
    assert "Warning" not in examine().out
    played.inspection["gitlabVersion"] = "17.10.4"
    found = examine()
    assert found.status == 0
    assert "\nWarning: gitlabVersion: GitLab 17.10.4 has received no security fixes since 2025-06-19." in found.out
    assert len(examine("--json").report["warnings"]) == 1


def test_the_former_keys_of_the_json_are_there_beside_the_new_ones(examine):
    report = examine("--json").report
    assert report["hops"] == report["checks"]
    assert [each["hop"] for each in report["hops"]] == [check.id for check in checks.CHECKS]


def test_machines_are_reached_as_the_user_of_the_stack_and_held_to_their_host_keys(examine_as_program, played):
    played.put("mode", "")
    examine_as_program()
    arguments = played.read("arguments").splitlines()
    assert {f"ec2-user@{address}" for address in ADDRESSES.values()} <= set(arguments)
    assert "StrictHostKeyChecking=yes" in arguments
    assert "BatchMode=yes" in arguments
    assert played.read("known_hosts").splitlines() == [f"{ADDRESSES[place]} ssh-ed25519 {place}" for place in MACHINES]
    assert played.read("server.key") == PRIVATE_KEY
    assert played.read("mode") == "600\n"
    assert not Path(arguments[arguments.index("-i") + 1]).exists()
    assert "run_read_only.sh" not in arguments
    assert any("flock --shared --nonblock" in argument for argument in arguments)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_machine_that_was_taken_writes_no_commands_into_the_administrators_terminal(examine, played, options):
    played.breaks("server", "target", "seen\x1b]0;title\x07 \x1b[2J\x9b31mred\x00")
    played.silent(Place.RUNNER, "ssh: \x1b[2Jno\x08 route")
    played.put("pipeline", json.dumps({"error": "no \x1b[31mtoken"}) + "\n")
    found = examine(*options)
    text = found.out + found.stderr
    assert "seen red" in text
    assert "ssh: no route" in text
    assert not [letter for letter in text if unicodedata.category(letter) == "Cc" and letter != "\n"]
    assert not re.search(r"\\u00[0189]", text)


@pytest.mark.parametrize(
    ("view", "check"),
    [
        (view, check.id)
        for view, seen in [
            ("server", checks.checks_from(Place.SERVER)),
            ("runner", checks.checks_from(Place.RUNNER)),
            ("pipeline", checks.checks_by_pipeline()),
        ]
        for check in (seen[0], seen[1], seen[-1])
    ],
)
def test_the_check_that_is_broken_is_named_with_its_message_and_remedy(examine, played, view, check):
    if (view, check) == ("pipeline", "online"):
        played.put("pipeline", line("accepted") + line("online", "broken", "paused"))
    else:
        played.breaks(view, check)
    found = examine("--json")
    assert found.status == 1
    assert named_alone(found.report, check)


def named_alone(report: dict[str, Any], check: str) -> bool:
    """Whether the report has that failed check and no other, with its message and its remedy."""
    named = {
        "check": check,
        "hop": check,  # deprecated
        "message": checks.BY_ID[check].failure,
        "cause": "",
        "remedy": checks.BY_ID[check].remedy,
    }
    broken = [each["check"] for each in report["checks"] if each["state"] == "broken"]
    return (report["verdict"], report["broken"], broken) == ("broken", named, [check])


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.id)
def test_every_check_is_named_if_those_before_it_pass(check):
    passed = {"state": "ok", "seconds": 0.5, "detail": ""}
    found = {each.id: passed for each in checks.CHECKS[: checks.CHECKS.index(check)]}
    found[check.id] = {**passed, "state": "broken"}
    findings = doctor.judge(checks.CHECKS, found, errors={}, unreachable={}, without_pipeline="")
    assert named_alone(json.loads(doctor.as_json(findings, settings={}, warnings=[], seconds=0)), check.id)
    text = doctor.as_text(findings, settings={}, warnings=[], seconds=0)
    assert f"✗ {check.title}" in text
    assert f"What to do: {check.remedy}" in text


def test_a_failure_with_a_cause_has_the_remedy_for_it(examine, played):
    check = checks.BY_ID["certificate"]
    passing = played.read("runner")
    for cause, remedy in check.remedies.items():
        broken = json.loads(line("certificate", "broken", "seen")) | {"cause": cause}
        played.put("runner", passing.partition(line("certificate"))[0] + json.dumps(broken) + "\n")
        found = examine("--json")
        assert (found.report["broken"]["cause"], found.report["broken"]["remedy"]) == (cause, remedy)
        assert f"What to do: {remedy}\n" in examine().out


def test_checks_that_do_not_apply_to_a_stack_are_shown_so_and_stop_nothing(examine, played):
    text = played.read("runner")
    for check in ("certificate", "certificate-renewal"):
        text = text.replace(line(check), line(check, "off", "external_url is http"))
    played.put("runner", text)
    found = examine("--json")
    assert (found.status, found.report["verdict"], found.report["broken"]) == (0, "well", None)
    assert found.states("off") == ["certificate", "certificate-renewal"]
    assert played.started["pipeline"] is True
    assert re.search(r"^\S certificate valid +external_url is http$", examine().out, re.MULTILINE)


def test_of_several_the_first_in_order_is_named_and_what_hangs_on_it_is_not_looked_at(examine, played):
    played.breaks("server", "nginx")
    played.breaks("runner", "sign-in", "returned 502")
    found = examine("--json")
    assert found.report["broken"]["check"] == "nginx"
    assert found.states("broken") == ["nginx", "sign-in"]
    assert found.detail("readiness") == "not checked because an earlier check failed: nginx"
    assert found.detail("pull") == "not checked because an earlier check failed: nginx"
    assert not (played.folder / "go").exists()


def test_a_check_that_was_deferred_to_the_broken_one_says_why(examine, played):
    deferred = line("target", "deferred", "nginx fails its own check, so no health check can be observed")
    played.put("server", deferred + line("nginx", "broken", "Connection refused"))
    found = examine("--json")
    assert found.report["broken"]["check"] == "nginx"
    assert found.detail("target") == "not checked: nginx fails its own check, so no health check can be observed"


def test_a_token_is_checked_although_the_runner_behind_it_is_broken_and_no_job_is_started(examine, played):
    played.breaks("runner", "process")
    played.put("pipeline", line("accepted", "broken", "Key: another"))
    played.put("pipeline.status", "1")
    found = examine("--json")
    assert played.started["pipeline"] is False
    assert found.report["broken"]["check"] == "accepted"


def test_an_image_that_is_not_on_the_disk_is_said_so_with_the_last_word_of_who_looked(examine, played):
    played.put("volume", "")
    played.put("volume.stderr", "group/app:1\nthe pushed image is not there\n")
    played.put("volume.status", "1")
    found = examine("--json")
    assert found.report["broken"]["check"] == "volume"
    assert found.detail("volume") == "the pushed image is not there"


@pytest.mark.parametrize(
    ("place", "check"), [(Place.SERVER, "target"), (Place.REGISTRY, "registry"), (Place.RUNNER, "process")]
)
def test_a_machine_that_is_silent_is_the_broken_check_it_stands_for(examine, played, place, check):
    played.silent(place)
    if place is Place.REGISTRY:
        played.breaks("runner", "registry", "returned 503")
    found = examine("--json")
    assert found.status == 1
    assert found.states("broken") == [check]
    assert found.detail(check).startswith(f"The {place} machine at {ADDRESSES[place]} does not answer over SSH")


def test_when_no_machine_answers_it_is_the_way_to_them_that_is_missing(examine, played):
    for place in MACHINES:
        played.silent(place)
    found = examine("--json")
    assert (found.status, found.report["verdict"]) == (2, "could not look")
    assert found.states("broken") == []
    assert "does not answer over SSH" in found.detail("name")


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ("Host key verification failed.", "has a different host key than on first contact; nothing was sent to it"),
        ("ec2-user@192.0.2.1: Permission denied (publickey).", "does not accept the key pair in the stack's settings"),
    ],
)
def test_a_machine_that_lets_nobody_in_is_no_check_that_is_broken(examine, played, said, detail):
    played.silent(Place.SERVER, said)
    found = examine("--json")
    assert found.status == 2
    assert detail in found.detail("nginx")


def test_while_a_step_is_at_work_it_says_so_and_nothing_else(examine, played):
    for view in ("server", "pipeline"):
        played.put(view, "")
        played.put(f"{view}.status", str(doctor_ssh.LOCKED))
    found = examine("--json")
    assert found.status == 2
    for check in ("target", "accepted", "pull"):
        assert "a step of pulumi up is running on the server machine" in found.detail(check)


def test_what_was_not_checked_in_time_is_never_well(examine, played, monkeypatch):
    played.put("runner.seconds", "30")
    clock = time.monotonic
    with monkeypatch.context() as late:  # the doctor began 0.7 s ago
        late.setattr(doctor, "time", types.SimpleNamespace(monotonic=lambda: clock() - 0.7))
        found = examine("--json", "--within", "1")
    assert found.status == 2
    assert found.seconds < 5
    assert found.detail("name") == "not checked: no answer in time"
    played.put("runner.seconds", "0")
    played.put("pipeline", line("accepted") + line("taken") + json.dumps({"error": "no time left"}) + "\n")
    played.put("pipeline.status", "2")
    found = examine("--json")
    assert found.status == 2
    assert found.detail("pull") == "not checked: no time left"


def test_the_settings_of_gitlab_are_told_as_they_are_now_and_fail_no_check(examine, played):
    known = {name: False for name in gitlab_settings.NAMES if name != "admin_mode"}
    played.put("pipeline", json.dumps({"facts": {"settings": known}}) + "\n" + played.read("pipeline"))
    found = examine()
    assert found.status == 0
    assert re.search(
        r"^  signup_enabled: false +Admin > Settings > General > Sign-up restrictions$", found.out, re.MULTILINE
    )
    assert "  admin_mode: unknown to this GitLab " in found.out
    assert examine("--json").report["settings"] == known
    assert "settings of GitLab" not in examine("--quick").out


def test_machines_are_checked_from_at_the_same_time(examine, played):
    for view in MACHINES:
        played.put(f"{view}.seconds", "0")
    played.put("together", "")
    assert examine("--within", "10").status == 0


def test_without_the_pipeline_what_needs_it_is_left_out_and_the_rest_may_be_well(examine, played):
    played.inspection["acceptanceImage"] = None
    found = examine("--json")
    assert found.status == 0
    assert found.states("off") == list(checks.NEEDS_A_TOKEN)
    assert not any("pipeline" in argument.split() for argument in played.read("arguments").splitlines())


def test_a_quick_run_starts_no_pipeline_and_says_that_it_was_left_out(examine, played):
    found = examine("--json", "--quick")
    assert (found.status, found.report["verdict"]) == (0, "well")
    assert found.states("off") == list(checks.NEEDS_A_TOKEN)
    assert found.detail("pull") == "needs the pipeline, which --quick skips"
    assert not any("pipeline" in argument.split() for argument in played.read("arguments").splitlines())
    assert "All checks that ran passed; some were skipped." in examine("--quick").out
    played.breaks("runner", "sign-in")
    assert examine("--quick").status == 1


def test_a_full_run_has_time_for_gitlabs_console_and_two_jobs_and_a_quick_one_ends_soon(examine, played):
    examine()
    examine("--quick")
    limits = [int(limit) for limit in re.findall(r" run_checks (\d+) ", played.read("arguments"))]
    assert min(limits) <= doctor.QUICK_TIME_LIMIT < doctor.TIME_LIMIT - 10 < max(limits) <= doctor.TIME_LIMIT
    for text in ("README.md", "docs/operations.md"):
        page = (ROOT / text).read_text()
        assert f"{doctor.TIME_LIMIT} seconds" in page, text
        assert re.search(
            rf"--quick.*{doctor.QUICK_TIME_LIMIT} seconds|{doctor.QUICK_TIME_LIMIT} seconds.*--quick", page
        ), text


@pytest.mark.parametrize("view", ["server", "pipeline", "volume"])
def test_an_error_that_nobody_foresaw_is_one_line_and_never_a_broken_stack(examine, played, view):
    played.put(view, "{cut off")
    played.put(f"{view}.status", "1")
    found = examine()
    assert (found.status, found.out) == (2, "")
    assert re.fullmatch(r"doctor: could not check: JSONDecodeError: .+\n", found.stderr)


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
    assert message in found.stderr
