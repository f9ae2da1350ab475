"""Shell scripts, executed where no machine is needed."""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configuration import remote_step
from configuration.paths import ACCEPTANCE_LOCK, LOCK, volume_device
from configuration.remote_step import PROGRAMS as PROGRAMS_FOLDER
from configuration.remote_step import (
    REMOTE,
    host_key_command,
    prepare_command,
    prepare_input,
    program,
    script,
    step_command,
    step_input,
)
from configuration.upgrade_stops import minimum_postgresql, stops_before
from programs.acceptance_checks.gitlab_project import BRANCH
from tests.shell import check_shell, run_with_tools
from tests.test_configuration import gitlab_rb
from tests.waiting import until, wait_until

SCRIPTS = sorted(REMOTE.glob("*.sh"))
PROGRAMS = [path for path in sorted(PROGRAMS_FOLDER.iterdir()) if not path.suffix and path.is_file()]


@pytest.mark.parametrize("wrong", ["echo $1", "cat one | grep two", 'case "$1" in a) ;; esac', "[ `id -u` = 0 ]", "("])
def test_unsound_shell_is_found(wrong):
    with pytest.raises(subprocess.CalledProcessError):
        check_shell(f"#!/bin/bash\n{wrong}\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_is_sound_shell(path):
    check_shell(path.read_text())


STOPS_EARLY = re.compile(r"(?<!\|)\|\s*(head\b|sed\s[^|]*\dq\b|grep\s+(?:-\S+\s+)*-\w*[qm])")
"""The end of a pipe that may exit before the writer, which is then killed: with pipefail, an intermittent failure."""


@pytest.mark.parametrize(
    "wrong", ["base64 -d <<<$x | grep -anxFm 1 y", "a | head -n 1", "a |\n grep -F -q b", "a | sed 1q"]
)
def test_a_reader_that_stops_early_is_found(wrong):
    assert STOPS_EARLY.search(wrong)


@pytest.mark.parametrize("path", [*SCRIPTS, *PROGRAMS], ids=lambda path: path.name)
def test_reads_every_pipe_to_its_end(path):
    assert not STOPS_EARLY.search(path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_holds_no_program(path):
    assert not re.search(r"<<-?\s*['\"]?[A-Za-z_]", path.read_text()), "move it to programs/ or configuration/"


def test_the_programs_that_stay_on_the_machines_are_found():
    assert [path.name for path in PROGRAMS] == [
        *("collect-garbage", "finish-jobs", "forget-root-password", "install-security-updates", "keep-data-mounted"),
        *("prune-docker", "refuse-containers", "restrict-egress", "restrict-metadata", "run-step"),
    ]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_program_that_stays_on_the_machines_is_sound_shell(path):
    check_shell(path.read_text())
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[1].startswith(f"# {path.name}")
    assert "set -euo pipefail" in lines


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_stops_at_the_first_error_says_what_it_is_and_shows_no_secret(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[1].startswith(f"# {path.name}")
    assert "set -euo pipefail" in lines
    assert "set -x" not in path.read_text()
    # The only Python on a machine, which is not in PATH.
    assert "python" not in path.read_text().replace("/usr/libexec/platform-python", "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_fits_the_one_line_of_result(path):
    if path.name not in ("prepare_host.sh", "run_read_only.sh"):
        assert ">&3" in path.read_text()


@pytest.fixture
def run_step(tmp_path):
    """run-step with its paths redirected to a temporary folder."""
    text = (
        program("run-step")
        .replace("/var/log/gitlab-stack", str(tmp_path / "log"))
        .replace("/run/gitlab-stack.lock", str(tmp_path / "lock"))
    )

    def run(
        step_script: str, *arguments: str, payload=(), limit: float = 20, read_only: bool = False
    ) -> subprocess.CompletedProcess[str]:
        _, _, *command = shlex.split(step_command("a_step", 4711, arguments, ended_at_limit=read_only))
        command[command.index("4711")] = str(limit)  # the commands that wait take fractions of a second
        return subprocess.run(
            ["bash", "-c", text, "run-step", *command],
            input=step_input(step_script, payload),
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )

    return run


either_kind = pytest.mark.parametrize("read_only", [False, True], ids=["changes", "read only"])


@either_kind
def test_a_step_gets_its_arguments_and_payload_and_answers_on_descriptor_three(run_step, read_only):
    answer = 'read -r secret; echo noise; echo "$1 $(base64 -d <<<"$secret")" >&3'
    done = run_step(answer, "given", payload=["käse"], read_only=read_only)
    assert (done.returncode, done.stdout, done.stderr) == (0, "given käse\n", "")


@either_kind
def test_a_step_tells_how_far_it_is_on_descriptor_four_alone(run_step, read_only):
    done = run_step("echo noise; echo noise >&2; echo waiting >&4; echo result >&3", read_only=read_only)
    assert (done.stdout, done.stderr) == ("result\n", "waiting\n")


@pytest.fixture
def run_read_only(tmp_path):
    """Run a script as the doctor does, with the lock of run-step in a temporary folder."""

    def run(step_script: str, *arguments: str, payload=(), limit: float = 20) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "bash",
                "-c",
                script("run_read_only.sh").replace("/run/", f"{tmp_path}/"),
                "a_step",
                str(limit),
                *arguments,
            ],
            input=step_input(step_script, payload),
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )

    return run


def test_a_read_only_step_gets_its_arguments_and_payload_and_answers_as_a_step_does(run_read_only):
    done = run_read_only(
        'read -r line; echo noise; echo waiting >&4; echo "$1 $(base64 -d <<<"$line")" >&3', "given", payload=["käse"]
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "given käse\n", "noise\nwaiting\n")
    assert run_read_only("exit 4").returncode == 4
    assert run_read_only("sleep 20", limit=0.1).returncode == 124


def test_a_read_only_step_does_not_wait_for_a_step_and_others_run_beside_it(run_read_only, tmp_path):
    marks, end = tmp_path / "marks", tmp_path / "end"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(run_read_only, f"touch {marks}; {until(end)}")
        wait_until(marks.exists)
        assert run_read_only("echo seen >&3").stdout == "seen\n"
        end.touch()
        assert first.result().returncode == 0
    with (tmp_path / "gitlab-stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        busy = run_read_only("echo seen >&3")
    assert (busy.returncode, busy.stdout) == (75, "")


def test_a_step_waits_for_a_read_only_one_and_not_the_other_way_round(run_step, tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert run_step("true", limit=0.1).returncode == 75


@either_kind
def test_a_failed_step_names_itself_and_shows_the_end_of_its_log(run_step, tmp_path, read_only):
    failed = run_step("set -e; echo first; echo 'what is wrong'; exit 4", read_only=read_only)
    assert failed.returncode == 4
    assert failed.stdout == ""
    assert "a_step failed on" in failed.stderr
    assert failed.stderr.endswith("first\nwhat is wrong\n")
    assert (tmp_path / "log" / "a_step.log").stat().st_mode & 0o777 == 0o600


def test_a_step_that_read_only_is_ended_when_it_takes_too_long_and_says_so(run_step):
    late = run_step("sleep 20", limit=0.1, read_only=True)
    assert late.returncode == 124
    assert "a_step did not finish within 0.1 s" in late.stderr


def test_a_step_that_takes_too_long_is_not_cut_and_the_one_repeated_waits_for_it(run_step, tmp_path):
    marks, go = tmp_path / "marks", tmp_path / "go"
    step = f"echo start >>{marks}; {until(go)}; sleep $1; echo end >>{marks}; echo result >&3"
    late = run_step(f"echo upgrading; {step}", "0.3", limit=0.5)
    assert (late.returncode, late.stdout) == (75, "")
    assert "a_step is still running on" in late.stderr
    assert "after 0.5 s and was not stopped. Run pulumi up again: it waits for the step." in late.stderr
    assert late.stderr.endswith("upgrading\n")
    assert marks.read_text().split() == ["start"]
    go.touch()
    assert run_step(step, "0").stdout == "result\n"
    assert marks.read_text().split() == ["start", "end", "start", "end"]


def test_while_a_step_runs_on_after_its_limit_no_read_only_step_runs_beside_it(run_step, run_read_only, tmp_path):
    (tmp_path / "gitlab-stack.lock").symlink_to(tmp_path / "lock")
    assert run_step(until(tmp_path / "end"), limit=0.1).returncode == 75
    assert run_read_only("echo seen >&3").returncode == 75
    (tmp_path / "end").touch()


def test_what_a_step_leaves_behind_does_not_keep_the_machine_busy(run_step, tmp_path):
    assert run_step(f"sleep 20 <&- >&- 2>&- 3>&- 4>&- & echo $! >{tmp_path}/pid").returncode == 0
    assert run_step("true", limit=2).returncode == 0
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)


def test_a_step_repeated_after_a_cut_session_waits_for_the_one_still_running(run_step, tmp_path):
    marks = tmp_path / "marks"
    step = f"echo start >>{marks}; sleep $1; echo end >>{marks}"
    with ThreadPoolExecutor() as pool:
        orphan = pool.submit(run_step, step, "0.5")
        wait_until(marks.exists)
        run_step(step, "0")
        orphan.result()
    assert marks.read_text().split() == ["start", "end", "start", "end"]


@pytest.fixture
def gitlab_machine(tmp_path):
    """Run a script with its absolute paths redirected to a temporary folder, and with stubs for commands."""
    tools = tmp_path / "bin"
    tools.mkdir()
    installed, dnf = tmp_path / "installed", f'#!/bin/bash\necho "${{@: -1}}" >{tmp_path}/installed\n'
    fakes = {"rpm": f"#!/bin/bash\ngrep -qx -- $2 {installed}\n", "dnf": dnf}
    for tool in ("rpm", "dnf", "gitlab-ctl", "gitlab-psql", "curl", "chown"):
        (tools / tool).write_text(fakes.get(tool, "#!/bin/bash\n"))
        (tools / tool).chmod(0o755)
    for folder in ("etc/yum.repos.d", "etc/gitlab", "opt/gitlab/etc", "var/opt/gitlab", "var/log/gitlab-stack"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "opt/gitlab/etc/gitlab.rb.template").touch()
    version = tmp_path / "opt/gitlab/embedded/service/gitlab-rails/VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("17.10.4\n")
    ruby = tmp_path / "opt/gitlab/embedded/bin/ruby"
    ruby.parent.mkdir()
    ruby.symlink_to(shutil.which("ruby") or "/bin/true")

    def run(name: str, *arguments: str, payload: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        text = script(name) if name.endswith(".sh") else program(name)
        text = re.sub(r"(?<![\w.])/(etc|opt|var)/", rf"{tmp_path}/\1/", text)
        text = text.replace("/usr/libexec/platform-python", sys.executable)
        return run_with_tools(text, name, arguments, payload, tools=tools, result=f"{tmp_path}/result")

    return run


def install_arguments(version: str) -> list[str]:
    """The arguments that the program passes to install_gitlab.sh for a version."""
    return [version, str(minimum_postgresql(version)), *stops_before(version)]


@pytest.mark.parametrize(
    ("configured", "wanted", "allowed"),
    [
        (None, "17.10.4", True),
        ("17.10.4", "17.10.4", True),
        ("17.10.4", "17.10.8", True),
        ("17.10.4", "17.11.7", True),
        ("17.11.7", "18.2.8", True),
        ("17.10.4", "17.10.3", False),
        ("17.10.4", "17.9.8", False),
        ("17.10.4", "18.0.1", False),
        ("17.10.4", "18.2.8", False),
        ("18.0.1", "18.3.0", False),
        ("18.2.8", "18.5.1", True),
        ("17.9.8", "17.10.4", True),
        ("17.7.7", "17.10.4", False),
    ],
)
def test_gitlab_is_upgraded_only_along_its_required_stops_and_never_back(
    gitlab_machine, tmp_path, configured, wanted, allowed
):
    if configured:
        (tmp_path / "etc/gitlab/configured-version").write_text(configured + "\n")
    done = gitlab_machine("install_gitlab.sh", *install_arguments(wanted))
    assert (done.returncode == 0) == allowed, done.stdout + done.stderr
    assert (tmp_path / "installed").exists() == allowed
    if not allowed:
        assert "gitlabVersion" in done.stdout


def test_an_upgrade_that_failed_after_its_migrations_is_not_taken_back(gitlab_machine, tmp_path):
    """configured-version is still the former one, and dnf would downgrade the package."""
    (tmp_path / "etc/gitlab/configured-version").write_text("17.10.4\n")
    (tmp_path / "etc/gitlab/gitlab-secrets.json").write_text("{}")
    (tmp_path / "var/opt/gitlab/bootstrapped").touch()
    (tmp_path / "opt/gitlab/embedded/service/gitlab-rails/VERSION").write_text("17.11.7\n")
    (tmp_path / "installed").write_text("gitlab-ce-17.11.7-ce.0.el8\n")
    refused = gitlab_machine("install_gitlab.sh", *install_arguments("17.10.4"))
    assert refused.returncode == 1
    assert "gitlabVersion 17.10.4 is older than 17.11.7, which has already migrated the data" in refused.stdout
    assert (tmp_path / "installed").read_text() == "gitlab-ce-17.11.7-ce.0.el8\n"
    assert gitlab_machine("install_gitlab.sh", *install_arguments("17.11.7")).returncode == 0


def test_a_refused_upgrade_names_the_next_stop(gitlab_machine, tmp_path):
    (tmp_path / "etc/gitlab/configured-version").write_text("17.10.4\n")
    refused = gitlab_machine("install_gitlab.sh", *install_arguments("18.5.1"))
    assert "set gitlabVersion to the last patch of 17.11 first" in refused.stdout


def test_an_upgrade_waits_until_the_background_migrations_of_the_last_one_are_finished(gitlab_machine, tmp_path):
    (tmp_path / "etc/gitlab/configured-version").write_text("17.10.4\n")
    psql = tmp_path / "bin/gitlab-psql"
    psql.write_text('#!/bin/bash\n[[ "$*" = *"NOT IN (3, 6)"* ]] && printf "BackfillOne\nBackfillTwo\n"\n')
    refused = gitlab_machine("install_gitlab.sh", *install_arguments("17.11.7"))
    assert refused.returncode == 1
    assert "Background migrations of GitLab 17.10.4 are not finished" in refused.stdout
    assert "Admin > Monitoring > Background migrations" in refused.stdout
    assert "Unfinished: BackfillOne BackfillTwo" in refused.stdout
    assert not (tmp_path / "installed").exists()
    assert gitlab_machine("install_gitlab.sh", *install_arguments("17.10.4")).returncode == 0
    (tmp_path / "installed").write_text("gitlab-ce-17.11.7-ce.0.el8\n")
    begun = gitlab_machine("install_gitlab.sh", *install_arguments("17.11.7"))
    assert begun.returncode == 0, "its own migrations must not block an upgrade that has already started"


@pytest.mark.parametrize("psql", ["#!/bin/bash\nexit 2\n", None], ids=["stopped", "not installed"])
def test_an_upgrade_is_refused_when_the_database_cannot_be_asked(gitlab_machine, tmp_path, psql):
    (tmp_path / "etc/gitlab/configured-version").write_text("17.10.4\n")
    if psql:
        (tmp_path / "bin/gitlab-psql").write_text(psql)
    else:
        (tmp_path / "bin/gitlab-psql").unlink()
    refused = gitlab_machine("install_gitlab.sh", *install_arguments("17.11.7"))
    assert refused.returncode == 1
    assert "the database does not respond" in refused.stdout
    assert "set gitlabVersion to 17.10.4" in refused.stdout
    assert not (tmp_path / "installed").exists()
    assert gitlab_machine("install_gitlab.sh", *install_arguments("17.10.4")).returncode == 0


@pytest.mark.parametrize(
    ("configured", "wanted", "postgresql", "allowed"),
    [
        ("17.10.4", "17.11.7", "14", True),
        ("17.11.7", "18.2.8", "14", False),
        ("17.11.7", "18.2.8", "16", True),
        ("18.2.8", "18.5.1", "16", True),
        ("18.11.11", "19.2.4", "16", False),
        ("18.11.11", "19.2.4", "17", True),
    ],
)
def test_an_upgrade_is_refused_when_the_data_are_of_an_older_postgresql_than_it_needs(
    gitlab_machine, tmp_path, *, configured, wanted, postgresql, allowed
):
    (tmp_path / "etc/gitlab/configured-version").write_text(f"{configured}\n")
    data = tmp_path / "var/opt/gitlab/postgresql/data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(f"{postgresql}\n")
    done = gitlab_machine("install_gitlab.sh", *install_arguments(wanted))
    assert (done.returncode == 0) == allowed, done.stdout + done.stderr
    assert (tmp_path / "installed").exists() == allowed
    if not allowed:
        assert f"is at PostgreSQL {postgresql}" in done.stdout
        assert "sudo gitlab-ctl pg-upgrade -V" in done.stdout


def test_a_volume_with_a_gitlab_but_without_its_secrets_stops_the_installation(gitlab_machine, tmp_path):
    (tmp_path / "var/opt/gitlab/bootstrapped").touch()
    refused = gitlab_machine("install_gitlab.sh", *install_arguments("17.10.4"))
    assert refused.returncode == 1
    assert "gitlab-secrets.json is missing" in refused.stdout
    (tmp_path / "etc/gitlab/gitlab-secrets.json").write_text("{}")
    assert gitlab_machine("install_gitlab.sh", *install_arguments("17.10.4")).returncode == 0


def test_a_volume_is_formatted_only_when_it_is_blank():
    text = script("mount_data.sh")
    assert "--force" not in text
    assert re.search(r"2\) mkfs\.xfs -q", text)
    assert volume_device("vol-0a1b") == "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b"
    assert "restorecon" in text


@pytest.fixture
def log_machine(tmp_path):
    """A machine with its logs on the root disk; runs the bind mounts of mount_data.sh up to the nth command."""
    text = script("mount_data.sh")
    binding = text.split("# From now on the volume is mounted again")[0]
    functions = re.findall(r"^\w+\(\) \{.*?(?:^\}|\}$)", binding, re.MULTILINE | re.DOTALL)
    names = " ".join(function.partition("(")[0] for function in functions)
    loop = re.search(r"^for target in .*?^start_service$", text, re.MULTILINE | re.DOTALL)
    assert loop
    # Functions, since programs would take most of the time. A bind mount is simulated by a link to the folder; the
    # mount point must be empty.
    fakes = f"""
        mountpoint() {{ [ -L "$2" ]; }}
        mount() {{ local source; read -r source _ <{tmp_path}/fstab; rmdir "$1"; ln -s "$source" "$1"; }}
        systemd-escape() {{ echo logs; }}
        restorecon() {{ :; }}
        sync() {{ :; }}
        systemctl() {{
            case "$1" in
                list-unit-files) echo a.service enabled ;;
                stop) rm -f {tmp_path}/running ;;
                start) touch {tmp_path}/running ;;
            esac
        }}
    """
    logs = tmp_path / "var/log/gitlab"
    (logs / "nginx").mkdir(parents=True)
    (logs / "nginx/access.log").write_text("from before\n")
    (logs / "nginx").chmod(0o750)
    for name in ("volume", "fstab", "running"):
        (tmp_path / name).mkdir() if name == "volume" else (tmp_path / name).touch()

    def run(end: int = 0) -> int:
        commands = "\n".join(
            [
                "set -euo pipefail",
                f"service=a mountpoint={tmp_path}/volume",
                fakes,
                *functions,
                f"declare -ft {names}; n=0",
                f"trap 'n=$((n + 1)); [ $n -ne {end} ] || exit 99' DEBUG" if end else "",
                loop[0],
            ]
        ).replace("/etc/fstab", f"{tmp_path}/fstab")
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", commands, "x", str(logs)], env={"PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 99), done.stderr + done.stdout
        return done.returncode

    return run, logs


@pytest.mark.parametrize("end", range(0, 50, 2))
def test_logs_move_to_the_data_volume_once_wherever_the_move_was_cut_off(log_machine, tmp_path, end):
    run, logs = log_machine
    run(end)
    assert run() == 0
    moved = tmp_path / "volume/logs"
    assert logs.resolve() == moved
    assert (moved / "nginx/access.log").read_text() == "from before\n"
    assert (moved / "nginx").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "running").exists()
    assert [entry.name for entry in logs.parent.iterdir()] == ["gitlab"], "nothing is left on the root disk"
    (moved / "nginx/access.log").write_text("since then\n")
    assert run() == 0
    assert (logs / "nginx/access.log").read_text() == "since then\n"


def test_files_on_the_root_disk_are_not_hidden_under_a_volume_that_has_its_own(log_machine, tmp_path):
    run, logs = log_machine
    (tmp_path / "volume/logs").mkdir()
    (tmp_path / "volume/logs/other").touch()
    with pytest.raises(AssertionError, match="already contains files on the root disk"):
        run()
    assert (logs / "nginx/access.log").exists()


def test_a_move_without_room_leaves_the_service_running(log_machine, tmp_path):
    run, logs = log_machine
    (tmp_path / "cp").write_text("#!/bin/bash\nexit 1\n")
    (tmp_path / "cp").chmod(0o755)
    with pytest.raises(AssertionError, match="could not be moved to the data volume"):
        run()
    assert (tmp_path / "running").exists()
    assert (logs / "nginx/access.log").exists()


def test_docker_and_the_runner_are_pinned_and_on_after_a_reboot():
    assert "systemctl enable --now docker" in script("install_docker.sh")
    assert "docker-ce-$version-1.el8" in script("install_docker.sh")
    assert "gitlab-runner-helper-images-$version-1" in script("install_runner.sh")
    assert "systemctl enable gitlab-runner" in script("configure_runner.sh")
    assert "--restart always" in script("run_registry.sh")
    assert '--publish "$port:$port"' in script("run_registry.sh")


def test_every_script_is_used_and_every_step_has_its_script():
    used = set()
    folders = [REMOTE.parent, REMOTE.parent / "components", REMOTE.parent / "recovery"]
    for path in [Path(remote_step.__file__), *(path for folder in folders for path in folder.glob("*.py"))]:
        text = path.read_text()
        used |= set(re.findall(r'\.run\(\s*(?:Place\.\w+, )?"(\w+)"', text)) | {
            Path(name).stem for name in re.findall(r'"(\w+\.(?:sh|rb))"', text)
        }
    assert used == {path.stem for path in REMOTE.iterdir() if path.suffix != ".json"}


@pytest.fixture
def prepare(tmp_path):
    """Run prepare_host.sh after a successful first boot, with its paths redirected to a temporary folder."""
    folders = ("etc/tmpfiles.d", "usr/local/sbin", "var/lib/gitlab-stack")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/lib/gitlab-stack/first-boot-done").touch()
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool, text in {"cloud-init": "echo noise", "firewall-cmd": "", "systemctl": "", "systemd-tmpfiles": ""}.items():
        (tools / tool).write_text(f'#!/bin/bash\ncat >/dev/null\necho "{tool} $*" >>{tmp_path}/calls\n{text}\n')
        (tools / tool).chmod(0o755)

    def run(*, cut_off: int = 0) -> subprocess.CompletedProcess[str]:
        command = shlex.split(prepare_command([80, 2222]))
        assert command.pop(0) == "sudo"
        text = prepare_input()
        for folder in folders:
            text = text.replace(f"/{folder}/", f"{tmp_path}/{folder}/")
        return subprocess.run(
            command,
            input=text[: len(text) - cut_off],
            text=True,
            capture_output=True,
            env={"PATH": f"{tools}:{os.environ['PATH']}"},
            check=False,
        )

    return run


def test_a_machine_is_prepared_without_a_word_and_gets_what_steps_need(prepare, tmp_path):
    done = prepare()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("run-step", "finish-jobs"):
        installed = tmp_path / "usr/local/sbin" / name
        assert installed.read_text() == program(name)
        assert installed.stat().st_mode & 0o777 == 0o755
    assert "firewall-cmd --quiet --permanent --add-port=2222/tcp" in (tmp_path / "calls").read_text()


@pytest.mark.needs("systemd-tmpfiles", root=True)
def test_no_user_but_root_can_open_a_lock_and_so_hold_it(prepare, tmp_path):
    assert prepare().returncode == 0
    assert "systemd-tmpfiles --create gitlab-stack.conf" in (tmp_path / "calls").read_text()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/gitlab-stack.lock").touch(mode=0o644)
    configuration = tmp_path / "etc/tmpfiles.d/gitlab-stack.conf"
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(configuration)], check=True)
    for lock in (LOCK, ACCEPTANCE_LOCK):
        assert (tmp_path / lock[1:]).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("missing", [1, 200, 3000])
def test_a_preparation_that_was_cut_off_installs_nothing(prepare, tmp_path, missing):
    assert prepare(cut_off=missing).returncode != 0
    assert list((tmp_path / "usr/local/sbin").iterdir()) == []


def test_what_an_unknown_machine_is_asked_prints_type_and_key_alone(tmp_path):
    file = tmp_path / "key.pub"
    file.write_text("ssh-ed25519 AAAA root@machine\n")
    command = host_key_command().replace("/etc/ssh/ssh_host_ed25519_key.pub", str(file))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ssh-ed25519 AAAA\n", "")


def test_ports_are_opened_in_firewalld_only_where_it_is_active(graph):
    text = script("prepare_host.sh")
    assert text.index("systemctl is-active --quiet firewalld") < text.index("firewall-cmd")
    assert graph.step("server-prepare-host").inputs["create"] == "sudo bash -s -- 80 2222"
    assert graph.step("registry-prepare-host").inputs["create"] == "sudo bash -s -- 5000"
    assert graph.step("runner-prepare-host").inputs["create"] == "sudo bash -s --"


def test_reconfigure_is_checked_and_readiness_awaited_on_the_workhorse_socket():
    text = script("configure_gitlab.sh")
    assert re.search(r"^if ! gitlab-ctl reconfigure >", text, re.MULTILINE)
    assert "--unix-socket /var/opt/gitlab/gitlab-workhorse/sockets/socket" in text
    assert "cp -n /opt/gitlab/etc/gitlab.rb.template /etc/gitlab/gitlab.rb.template" in script("install_gitlab.sh")


def test_the_runner_is_made_once_and_found_again_and_what_the_owner_decides_later_stays():
    text = script("prepare_gitlab.rb")
    assert text.index("find_by(description: runner_name)") < text.index("CreateRunnerService")
    assert "paused: false" in text
    assert "active:" not in text
    assert text.index("if is_new == 'true'") < text.index("current.update(known.to_h)")


def test_the_branch_of_the_acceptance_is_the_one_that_is_protected():
    assert re.findall(r"name: '(.*?)'", script("prepare_gitlab.rb")) == [BRANCH, BRANCH]


@pytest.fixture
def reconfigured(gitlab_machine, tmp_path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Configure GitLab with a gitlab.rb; a line `broken` makes every reconfigure fail, and `unready` the readiness."""
    rb = tmp_path / "etc/gitlab/gitlab.rb"
    (tmp_path / "bin/gitlab-ctl").write_text(
        f"#!/bin/bash\necho $1 {rb.name}: $(cat {rb}) >>{tmp_path}/calls\n! grep -q broken {rb}\n"
    )
    (tmp_path / "bin/curl").write_text(f"#!/bin/bash\n[[ $(<{rb}) != *unready* ]]\n")
    (tmp_path / "bin/sleep").write_text("#!/bin/bash\n")
    (tmp_path / "bin/sleep").chmod(0o755)
    return lambda text: gitlab_machine("configure_gitlab.sh", payload=[text, ""])


@pytest.mark.parametrize("wrong", ["# broken", "# unready"])
def test_a_configuration_that_does_not_work_gives_way_to_the_former_one(reconfigured, tmp_path, wrong):
    """Pulumi keeps the former inputs of a failed step, so the step does not run again for a setting taken back."""
    assert reconfigured("# former").returncode == 0
    failed = reconfigured(wrong)
    assert failed.returncode == 1
    assert "GitLab did not work with the new gitlab.rb, so it has the former one again." in failed.stdout
    assert (tmp_path / "etc/gitlab/gitlab.rb").read_text() == "# former"
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "reconfigure gitlab.rb: # former"
    assert reconfigured("# corrected").returncode == 0
    assert (tmp_path / "etc/gitlab/gitlab.rb").read_text() == "# corrected"


def test_a_run_that_was_interrupted_does_not_leave_its_file_as_the_former_one(reconfigured, tmp_path):
    assert reconfigured("# former").returncode == 0
    (tmp_path / "etc/gitlab/gitlab.rb").write_text("# interrupted")
    assert reconfigured("# broken").returncode == 1
    assert (tmp_path / "etc/gitlab/gitlab.rb").read_text() == "# former"


def test_a_new_gitlab_or_one_that_is_being_upgraded_keeps_the_file_that_failed(reconfigured, tmp_path):
    assert reconfigured("# broken").returncode == 1
    assert (tmp_path / "etc/gitlab/gitlab.rb").read_text() == "# broken"
    assert reconfigured("# works").returncode == 0
    (tmp_path / "opt/gitlab/embedded/service/gitlab-rails/VERSION").write_text("17.11.7\n")
    failed = reconfigured("# broken in 17.11.7")
    assert failed.returncode == 1
    assert "former" not in failed.stdout
    assert (tmp_path / "etc/gitlab/gitlab.rb").read_text() == "# broken in 17.11.7"


def test_a_backup_finds_an_empty_folder_of_the_registry(gitlab_machine, tmp_path):
    """The SKIP that a user passes replaces the one in gitlab_rails['env'], so the folder must exist."""
    assert gitlab_machine("configure_gitlab.sh", payload=["", ""]).returncode == 0
    assert list((tmp_path / "var/opt/gitlab/gitlab-rails/shared/registry").iterdir()) == []
    assert "chown git:git /var/opt/gitlab/gitlab-rails/shared/registry\n" in script("configure_gitlab.sh")


def test_the_registry_runs_as_the_images_user_on_its_volume():
    text = script("run_registry.sh")
    assert 'install -d -m 0700 -o "$account" -g "$account" /etc/docker/registry' in text
    assert "mountpoint -q /srv/registry" in text
    assert "type=bind,source=/srv/registry/images,target=/var/lib/registry" in text
    assert "--user" not in text
    assert "/srv/registry" in (REMOTE.parent / "cloud-init/registry.yaml").read_text()


def test_the_initial_root_password_is_made_on_the_machine_and_kept_to_its_owner(gitlab_machine, tmp_path):
    configured = gitlab_machine("configure_gitlab.sh", payload=["external_url 'x'", ""])
    assert configured.returncode == 0, configured.stdout
    password = tmp_path / "etc/gitlab/seeded-root-password"
    assert re.fullmatch(r"[0-9a-f]{32}\n", password.read_text())
    assert password.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/gitlab/gitlab.rb").read_text() == "external_url 'x'"
    assert (tmp_path / "etc/gitlab/gitlab.rb").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/gitlab/configured-version").read_text() == "17.10.4\n"
    assert password.read_text().strip() not in configured.stdout + configured.stderr
    seeded = tmp_path / "etc/gitlab/seeded-by-stack"
    assert password.read_text().strip() not in seeded.read_text()
    assert seeded.stat().st_mode & 0o777 == 0o600


def test_once_root_has_another_password_the_first_is_neither_needed_nor_made_again(gitlab_machine, tmp_path):
    assert gitlab_machine("configure_gitlab.sh", payload=["", "first-Secret-4711"]).returncode == 0
    (tmp_path / "var/opt/gitlab/bootstrapped").touch()
    (tmp_path / "etc/gitlab/seeded-root-password").unlink()
    for given in ("", "first-Secret-4711"):
        again = gitlab_machine("configure_gitlab.sh", payload=["", given])
        assert again.returncode == 0, again.stdout
        assert not (tmp_path / "etc/gitlab/seeded-root-password").exists()
    refused = gitlab_machine("configure_gitlab.sh", payload=["", "other-Secret-4711"])
    assert refused.returncode == 1
    assert "initialRootPassword was changed" in refused.stdout


def test_a_gitlab_of_an_earlier_version_keeps_its_password_and_what_its_owner_has_set(gitlab_machine, tmp_path):
    (tmp_path / "var/opt/gitlab/bootstrapped").touch()
    (tmp_path / "etc/gitlab/seeded-root-password").write_text("first-Secret-4711\n")
    assert gitlab_machine("configure_gitlab.sh", payload=["", "other-Secret-4711"]).returncode == 1
    assert gitlab_machine("configure_gitlab.sh", payload=["", "first-Secret-4711"]).returncode == 0
    assert (tmp_path / "etc/gitlab/seeded-root-password").read_text() == "first-Secret-4711\n"
    assert not (tmp_path / "etc/gitlab/unprepared").exists()


@pytest.mark.parametrize(
    ("said", "status", "kept"),
    [("valid", 0, True), ("invalid", 0, False), ("PG::ConnectionBad", 1, True), ("", 1, True)],
)
def test_the_first_password_is_forgotten_only_when_gitlab_says_that_it_is_no_longer_roots(
    gitlab_machine, tmp_path, said, status, kept
):
    (tmp_path / "bin/gitlab-rails").write_text(f"#!/bin/bash\ncat >{tmp_path}/asked\necho warning\necho '{said}'\n")
    (tmp_path / "bin/gitlab-rails").chmod(0o755)
    password = tmp_path / "etc/gitlab/seeded-root-password"
    password.write_text("first-Secret-4711\n")
    done = gitlab_machine("forget-root-password", payload=[])
    assert done.returncode == status, done.stderr
    assert (tmp_path / "asked").read_text() == "first-Secret-4711\n"
    assert password.exists() == kept
    assert "first-Secret-4711" not in done.stdout + done.stderr


def test_a_console_that_fails_forgets_no_password(gitlab_machine, tmp_path):
    (tmp_path / "bin/gitlab-rails").write_text("#!/bin/bash\necho invalid\nexit 1\n")
    (tmp_path / "bin/gitlab-rails").chmod(0o755)
    (tmp_path / "etc/gitlab/seeded-root-password").write_text("first-Secret-4711\n")
    assert gitlab_machine("forget-root-password", payload=[]).returncode == 1
    assert (tmp_path / "etc/gitlab/seeded-root-password").exists()


@pytest.mark.parametrize("password", [None, "plain", 'a "b" \\c', "käse {}}"])
def test_the_first_password_is_shown_as_json_whatever_it_is(gitlab_machine, tmp_path, password):
    if password:
        (tmp_path / "etc/gitlab/seeded-root-password").write_text(f"{password}\n")
    shown = gitlab_machine("show_root_password.sh", payload=[])
    assert json.loads((tmp_path / "result").read_text()) == {"rootPassword": password}
    assert (shown.stdout, shown.stderr) == ("", "")


def test_a_password_that_cannot_be_generated_is_not_left_empty(gitlab_machine, tmp_path):
    (tmp_path / "bin/openssl").write_text("#!/bin/bash\nexit 1\n")
    (tmp_path / "bin/openssl").chmod(0o755)
    assert gitlab_machine("configure_gitlab.sh", payload=["", ""]).returncode == 1
    assert not (tmp_path / "etc/gitlab/seeded-root-password").exists()


@pytest.mark.needs("ruby")
@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("puma['worker_processes'] = 2\nldap['x'] = { 'password' => 'hunter2'-Secret' } }\n", 2),
        ("a = [1,\n  2\nb = 'hunter2\n\n", 3),
        ("\n\nif hunter2\n", None),
    ],
)
def test_a_mistake_in_the_owners_lines_is_told_by_its_number_and_nothing_of_it_is_shown(
    gitlab_machine, tmp_path, extra, line
):
    """Otherwise reconfigure would print the line, and the engine shows the end of the step's log."""
    before = tmp_path / "etc/gitlab/gitlab.rb"
    before.write_text("external_url 'before'\n")
    calls = tmp_path / "calls"
    (tmp_path / "bin/gitlab-ctl").write_text(f"#!/bin/bash\necho $* >>{calls}\n")
    refused = gitlab_machine("configure_gitlab.sh", payload=[gitlab_rb(gitlabRb=extra), ""])
    assert refused.returncode == 1
    shown = refused.stdout + refused.stderr
    reported = re.search(rf"^gitlabRb, line ({line or '[0-9]+'}): ", shown, re.MULTILINE)
    assert reported, shown
    assert int(reported[1]) <= len(extra.rstrip("\n").splitlines()), "an open construct is reported in the setting"
    assert not re.search("hunter2|Secret|ldap|password", shown)
    assert before.read_text() == "external_url 'before'\n"
    assert not before.with_name("gitlab.rb.new").exists()
    assert not calls.exists()


@pytest.mark.needs("ruby")
def test_a_mistake_outside_the_owners_lines_is_not_told_to_be_in_them(gitlab_machine):
    refused = gitlab_machine("configure_gitlab.sh", payload=["external_url 'x'\n)\n", ""])
    assert refused.returncode == 1
    assert "gitlab.rb, line 2: " in refused.stdout
    assert "gitlabRb" not in refused.stdout


TRACE = "opt/gitlab/embedded/cookbooks/cache/cinc-stacktrace.out"
COMPILE_ERROR = """\
Recipe Compile Error in /opt/gitlab/embedded/cookbooks/cache/cookbooks/gitlab/recipes/default.rb
Mixlib::Config::UnknownConfigOptionError: Reading unsupported config value hunter2.
Cookbook Trace: (most recent call first)
  /opt/gitlab/embedded/cookbooks/cache/cookbooks/package/libraries/config/gitlab.rb:7:in `method_missing'
[2026-11-27T12:00:00+00:00] FATAL: Mixlib::Config::UnknownConfigOptionError: Reading unsupported config value hunter2.
"""


@pytest.mark.parametrize("dumped", [True, False], ids=["a trace in its own file", "a trace in the output"])
@pytest.mark.parametrize(("line", "where"), [(2, "gitlabRb, line 2: "), (-1, "gitlab.rb, line ")])
def test_an_error_while_gitlab_rb_is_read_is_told_by_its_line_and_no_value_is_shown(
    gitlab_machine, tmp_path, dumped, line, where
):
    """Ruby's message has the value that it does not understand, and the engine shows the end of the step's log."""
    text = gitlab_rb(gitlabRb="puma['worker_processes'] = 2\ngitlab_rails['smtp_password'] = hunter2\n")
    lines = text.splitlines()
    number = lines.index("# From the setting gitlabRb.") + 1 + line if line > 0 else len(lines)
    entry = f"{tmp_path}/etc/gitlab/gitlab.rb:{number}:in `from_file'"
    trace = tmp_path / TRACE
    trace.parent.mkdir(parents=True)
    trace.write_text(f"{COMPILE_ERROR}{entry}\n")
    said = tmp_path / "said"
    said.write_text(COMPILE_ERROR + (f"FATAL: Stacktrace dumped to {trace}\n" if dumped else f"{entry}\n"))
    (tmp_path / "bin/gitlab-ctl").write_text(f"#!/bin/bash\ncat {said}; echo hunter2 >&2; exit 1\n")
    failed = gitlab_machine("configure_gitlab.sh", payload=[text, ""])
    assert failed.returncode == 1
    assert re.search(rf"^{re.escape(where)}", failed.stdout, re.MULTILINE), failed.stdout
    assert "hunter2" not in failed.stdout + failed.stderr
    output = tmp_path / "var/log/gitlab-stack/reconfigure.log"
    assert f"sudo less {output}" in failed.stdout
    assert "hunter2" in output.read_text()
    assert output.stat().st_mode & 0o077 == 0


def test_another_error_of_reconfigure_is_shown_as_it_is(gitlab_machine, tmp_path):
    """A warning that names a line of gitlab.rb is not its reason."""
    trace = tmp_path / TRACE
    trace.parent.mkdir(parents=True)
    trace.write_text("/opt/gitlab/embedded/cookbooks/cache/cookbooks/package/libraries/config/gitlab.rb:7:in `x'\n")
    (tmp_path / "bin/gitlab-ctl").write_text(
        f"#!/bin/bash\necho {tmp_path}/etc/gitlab/gitlab.rb:3:in '`block:' a warning\n"
        f"echo 'FATAL: Stacktrace dumped to {trace}'\necho PG::ConnectionBad; exit 1\n"
    )
    failed = gitlab_machine("configure_gitlab.sh", payload=[gitlab_rb(gitlabRb="puma['worker_processes'] = 2"), ""])
    assert failed.returncode == 1
    assert "PG::ConnectionBad" in failed.stdout
    assert "Ruby error" not in failed.stdout


def test_a_given_initial_root_password_is_used_once_and_a_later_change_refused(gitlab_machine, tmp_path):
    assert gitlab_machine("configure_gitlab.sh", payload=["", "first-Secret-4711"]).returncode == 0
    assert (tmp_path / "etc/gitlab/seeded-root-password").read_text() == "first-Secret-4711\n"
    assert gitlab_machine("configure_gitlab.sh", payload=["", "first-Secret-4711"]).returncode == 0
    refused = gitlab_machine("configure_gitlab.sh", payload=["", "other-Secret-4711"])
    assert refused.returncode == 1
    assert "sudo gitlab-rake 'gitlab:password:reset[root]'" in refused.stdout
    assert "Secret" not in refused.stdout + refused.stderr


def test_only_a_new_gitlab_is_prepared_as_one_and_the_server_hands_out_no_password(gitlab_machine, tmp_path):
    console = f"""#!/bin/bash
{{ echo "$@"; cat; }} >{tmp_path}/asked; echo "a warning"
echo '{{"runnerToken":"glrt-1","unknownSettings":["one","two"]}}'
"""
    (tmp_path / "bin/gitlab-rails").write_text(console)
    (tmp_path / "bin/gitlab-rails").chmod(0o755)
    assert gitlab_machine("configure_gitlab.sh", payload=["", "first-Secret-4711"]).returncode == 0
    (tmp_path / "var/opt/gitlab/gitlab-sshd").mkdir()
    (tmp_path / "var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA root@gitlab\n")
    for is_new in ("true", "false"):
        done = gitlab_machine(
            "prepare_gitlab.sh", "runner", "[]", "group/project", "any", payload=["program", "{settings}"]
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "asked").read_text() == f"runner program runner [] group/project any {is_new}\n{{settings}}"
        assert "Skipped gitlabSettings that this GitLab version does not have: one, two\n" in done.stderr
        assert json.loads((tmp_path / "result").read_text()) == {
            "runnerToken": "glrt-1",
            "gitSshHostKey": "ssh-ed25519 AAAA",
        }


def test_a_console_that_fails_without_a_result_fails_the_step(gitlab_machine, tmp_path):
    (tmp_path / "bin/gitlab-rails").write_text("#!/bin/bash\ncat >/dev/null\necho 'a warning'\n")
    (tmp_path / "bin/gitlab-rails").chmod(0o755)
    (tmp_path / "etc/gitlab/unprepared").touch()
    failed = gitlab_machine("prepare_gitlab.sh", "runner", "[]", "group/project", "any", payload=["program", "{}"])
    assert failed.returncode == 1
    assert "GitLab's console did not print a result" in failed.stdout
    assert (tmp_path / "etc/gitlab/unprepared").exists(), "GitLab must still count as new"


def test_a_gitlab_that_was_seeded_by_something_else_is_not_given_a_password(gitlab_machine, tmp_path):
    (tmp_path / "var/opt/gitlab/bootstrapped").touch()
    refused = gitlab_machine("configure_gitlab.sh", payload=["", ""])
    assert refused.returncode == 1
    assert "not seeded by this stack" in refused.stdout
    assert not (tmp_path / "etc/gitlab/seeded-root-password").exists()
    (tmp_path / "etc/gitlab/seeded-by-stack").touch()
    assert gitlab_machine("configure_gitlab.sh", payload=["", ""]).returncode == 0, "the advice works"
    assert not (tmp_path / "etc/gitlab/unprepared").exists()
    assert gitlab_machine("configure_gitlab.sh", payload=["", "first-Secret-4711"]).returncode == 1


def test_the_registrys_files_are_compared_with_those_of_before_also_when_there_were_none(tmp_path):
    [compare] = [line for line in script("run_registry.sh").splitlines() if line.startswith("files() ")]
    commands = f'set -euo pipefail\n{compare}\nbefore=$(files)\necho x >{tmp_path}/x\n[ "$before" != "$(files)" ]'
    subprocess.run(["bash", "-c", commands.replace("/etc/docker/registry", str(tmp_path))], check=True)
