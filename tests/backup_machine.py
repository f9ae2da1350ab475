"""A machine with stubs for gitlab-backup-volume: EC2 and the metadata service over HTTP, and the machine's commands."""

import contextlib
import datetime
import functools
import http.server
import json
import os
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from programs.volume_backup import backup, cli, ec2, machine, manifest, metadata
from tests.check_runs import run_here

ROOT = Path(__file__).resolve().parent.parent
ROLE = "the-role"
CREDENTIALS = {"Code": "Success", "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret", "Token": "session"}
XML = '<?xml version="1.0"?><{0} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{1}</{0}>'


FSFREEZE = """\
fail() {{ echo "fsfreeze: $1" >&2; exit 1; }}
case $1 in
    --freeze)
        [ ! -e {folder}/refuses-to-freeze ] || fail "freeze failed: Operation not supported"
        [ ! -e {folder}/frozen ] || fail "freeze failed: Device or resource busy"
        touch {folder}/frozen ;;
    --unfreeze) rm {folder}/frozen 2>/dev/null || fail "unfreeze failed: Invalid argument" ;;
esac"""
SYSTEMD_RUN = """\
for option; do [ "$option" != fsfreeze ] || break; shift; done
setsid bash -c 'echo $$ >{folder}/timer; until [ -e {folder}/elapsed ]; do sleep 0.01; done; rm {folder}/timer; "$@"' \
    "$0" "$@" &>/dev/null </dev/null &
while [ ! -e {folder}/timer ]; do sleep 0.01; done"""
SYSTEMCTL = '[ -e {folder}/timer ] && kill -- -"$(cat {folder}/timer)" && rm {folder}/timer'
PSQL = """\
case $* in
    *count*) printf 'users|3\\nprojects|2\\n' ;;
    *"FROM events ORDER"*) echo '2026-11-27 22:59:58' ;;
    *wal*) echo 0/5000060 ;;
esac"""


class PlayedEc2(http.server.ThreadingHTTPServer):
    """EC2's snapshots and a machine's metadata service. `faults` maps an action to what it does instead, or a list of
    what it does instead the first times.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, bool]] = []
        """Each action, and whether the file system was frozen when it arrived."""
        self.faults: dict[str, Any] = {}
        self.role: str | None = ROLE
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, started: datetime.datetime, **tags: str) -> str:
        snapshot_id = f"snap-{len(self.calls)}-{len(self.snapshots)}"
        named = {name.replace("_", "-"): value for name, value in tags.items()}
        self.snapshots[snapshot_id] = {"started": started, "tags": named, "locked": 0, "state": "completed"}
        return snapshot_id

    def actions(self) -> list[str]:
        return [action for action, _ in self.calls]

    def create_snapshot(self, form: Mapping[str, str]) -> str:
        tags = {
            form[key]: form[key.removesuffix("Key") + "Value"]
            for key in form
            if key.startswith("TagSpecification.1.Tag.") and key.endswith(".Key")
        }
        with self.lock:
            snapshot_id = self.add(datetime.datetime.now(datetime.UTC), **tags)
        self.snapshots[snapshot_id]["volume"] = form["VolumeId"]
        return f"<snapshotId>{snapshot_id}</snapshotId><status>pending</status>"

    def lock_snapshot(self, form: Mapping[str, str]) -> str:
        assert form["LockMode"] == "governance"
        self.snapshots[form["SnapshotId"]]["locked"] = int(form["LockDuration"])
        return "<lockState>governance</lockState><lockExpiresOn>2026-12-04T23:00:04.512Z</lockExpiresOn>"

    def delete_snapshot(self, form: Mapping[str, str]) -> str:
        if self.snapshots[form["SnapshotId"]]["locked"]:
            raise PermissionError("SnapshotLocked")
        del self.snapshots[form["SnapshotId"]]
        return "<return>true</return>"

    def describe_snapshots(self, form: Mapping[str, str]) -> str:
        assert form["Filter.1.Name"] == "tag:gitlab-stack"
        items = [
            f"<item><snapshotId>{name}</snapshotId><status>{each['state']}</status><volumeSize>100</volumeSize>"
            f"<startTime>{each['started']:%Y-%m-%dT%H:%M:%S.000Z}</startTime><tagSet>"
            + "".join(f"<item><key>{key}</key><value>{value}</value></item>" for key, value in each["tags"].items())
            + "</tagSet></item>"
            for name, each in self.snapshots.items()
            if each["tags"]["gitlab-stack"] == form["Filter.1.Value.1"]
        ]
        half = len(items) // 2  # two pages
        if "NextToken" in form:
            return f"<snapshotSet>{''.join(items[half:])}</snapshotSet>"
        return f"<snapshotSet>{''.join(items[:half])}</snapshotSet><nextToken>second</nextToken>"


class Handler(http.server.BaseHTTPRequestHandler):
    server: PlayedEc2
    ACTIONS = ("CreateSnapshot", "LockSnapshot", "DeleteSnapshot", "DescribeSnapshots")

    def answer(self, status: int, text: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # the client has given up

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(body))
        action = form["Action"]
        self.server.calls.append((action, (self.server.folder / "frozen").exists()))
        fault = self.server.faults.get(action)
        if isinstance(fault, list):
            fault = fault.pop(0) if fault else None
        if fault == "hangs":
            time.sleep(5)
            return
        if isinstance(fault, tuple):
            self.refuse(*fault)
            return
        do = {
            "CreateSnapshot": self.server.create_snapshot,
            "LockSnapshot": self.server.lock_snapshot,
            "DeleteSnapshot": self.server.delete_snapshot,
            "DescribeSnapshots": self.server.describe_snapshots,
        }[action]
        try:
            text = do(form)
        except PermissionError as locked:
            self.refuse(400, str(locked))
            return
        if fault == "answer lost":
            time.sleep(5)
        elif callable(fault):
            fault()
        self.answer(200, XML.format(f"{action}Response", text))

    def refuse(self, status: int, code: str) -> None:
        error = f"<Errors><Error><Code>{code}</Code><Message>it is refused</Message></Error></Errors>"
        self.answer(status, XML.format("Response", error) if code else "upstream connect error")

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, "token")

    def do_GET(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token"] == "token"
        folder = "/latest/meta-data/iam/security-credentials/"
        found = {folder: self.server.role, f"{folder}{ROLE}": json.dumps(CREDENTIALS)} if self.server.role else {}
        text = found.get(self.path)
        self.answer(*((200, text) if text else (404, "Not Found")))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, a name of http.server
        pass


class Machine:
    """A machine with a mounted volume at `folder`/volume; `calls` lists the calls of commands in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "volume", "state"):
            (folder / name).mkdir()
        self.ec2 = PlayedEc2(folder)
        self.put("fsfreeze", FSFREEZE)
        self.put("systemd-run", SYSTEMD_RUN)
        self.put("systemctl", SYSTEMCTL)
        self.put("sync", "")
        self.put("gitlab-psql", PSQL)
        (folder / "secrets").write_text(json.dumps({"gitlab_rails": {"db_key_base": "0a"}, "registry": {}}))
        (folder / "certificate").write_text("certificate")
        (folder / "VERSION").write_text("17.10.4\n")
        (folder / "lock").touch()
        self.configure()
        self.attributes = {
            (machine, "CONFIGURATION"): str(folder / "backup.json"),
            (machine, "RECORD"): str(folder / "state/last-backup.json"),
            (machine, "STEPS_LOCK"): str(folder / "lock"),
            (manifest, "SECRETS"): str(folder / "secrets"),
            (manifest, "TOKEN_CERTIFICATE"): str(folder / "certificate"),
            (manifest, "GITLAB_VERSION"): str(folder / "VERSION"),
            (metadata, "SERVICE"): self.ec2.url,
            (ec2, "PAUSES"): (0, 0),
            (ec2, "NEW_PAUSES"): (0, 0),
            (backup, "NEW_PAUSES"): (0, 0),
            (cli, "Ec2"): functools.partial(ec2.Ec2, endpoint=self.ec2.url),
            (os.path, "ismount"): lambda path: path == str(folder / "volume"),
        }

    def put(self, tool: str, text: str) -> None:
        file = self.folder / "bin" / tool
        file.write_text(f'#!/bin/bash\necho "{tool} $*" >>{self.folder}/calls\n{text.format(folder=self.folder)}\n')
        file.chmod(0o755)

    def configure(self, role: str = "server", **changes: Any) -> None:
        known = {
            "stack": "gitlab/dev",
            "role": role,
            "region": "eu-central-1",
            "volume_id": "vol-0123456789abcdef0",
            "mountpoint": str(self.folder / "volume"),
            "keep": {"hourly": 24, "daily": 14, "weekly": 8},
            "versions": {"gitlab": "17.8.0"} if role == "server" else {"registry": "4.15.2"},
            **({} if role == "server" else {"after": "server"}),
        }
        (self.folder / "backup.json").write_text(json.dumps({**known, **changes}))

    def play(self, monkeypatch) -> None:
        """Make this process the machine."""
        monkeypatch.setenv("PATH", f"{self.folder}/bin:{os.environ['PATH']}")
        for (module, name), value in self.attributes.items():
            monkeypatch.setattr(module, name, value)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of the program in this process."""
        return run_here(lambda: cli.main(list(arguments)), "")

    def start(self, *arguments: str) -> int:
        """Start the program as a process of its own, a copy of this one. Returns its process ID."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                status = cli.main(list(arguments))
            finally:
                sys.stdout.flush()
                os._exit(status)
        return child

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def names(self) -> list[str]:
        """The calls without their arguments, except what fsfreeze does."""
        return [" ".join(call.split()[: 2 if call.startswith("fsfreeze") else 1]) for call in self.calls]

    @property
    def frozen(self) -> bool:
        return (self.folder / "frozen").exists()

    @property
    def armed(self) -> bool:
        return (self.folder / "timer").exists()

    @contextlib.contextmanager
    def time_of_the_thaw(self) -> Iterator[None]:
        """The time at which an armed thaw is due. Outside of this block, no time passes for it."""
        (self.folder / "elapsed").touch()
        yield
        (self.folder / "elapsed").unlink()

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "state/last-backup.json").read_text()))

    def close(self) -> None:
        self.ec2.shutdown()
        self.ec2.server_close()
        if self.armed:
            os.killpg(int((self.folder / "timer").read_text()), signal.SIGKILL)
