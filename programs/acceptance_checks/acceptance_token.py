"""The access token of the acceptance's project: issued by GitLab's console, revoked however this process ends."""

import contextlib
import fcntl
import json
import os
import subprocess
import time
from typing import Any, Dict, Iterator

from . import clients
from .outcomes import CheckError
from .run import CheckRun

TOKEN_LOCK = "/run/gitlab-stack-acceptance.lock"
REVOCATION = "gitlab-stack-revoke"  # prefix of the names of the timer and of the service it starts
CONSOLE_LIMIT = 300  # seconds; the console loads all of GitLab
TOKEN_LIFE = "30min"
"""When a systemd timer revokes the token if this process was killed; longer than the limits of its checks together."""


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold this machine's lock for the pipeline. Raises CheckError if another process holds it."""
    with open(TOKEN_LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckError("another run of the acceptance pipeline is in progress") from None
        yield


def issue_token(run: CheckRun, console: str) -> Dict[str, Any]:
    """Issue a `token` for the acceptance's project; also returns GitLab's state of the `runner` and the values of the
    application `settings` that the task lists. Raises CheckError.

    `console` is the source of the program for GitLab's console, remote/acceptance_token.rb.
    """
    endpoints = run.endpoints
    command = ["gitlab-rails", "runner", console, "issue", endpoints["project"], endpoints["runner_name"]]
    command.append(json.dumps(run.task.get("settings", [])))
    limit = min(CONSOLE_LIMIT, run.end - time.monotonic())
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise CheckError(f"GitLab's console did not answer within {limit:.0f} s") from None
    answer = clients.last_line(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or not answer.startswith("{"):
        raise CheckError("GitLab's console did not issue a token; see the lines above")
    issued: Dict[str, Any] = json.loads(answer)
    return issued


def schedule_revocation(run: CheckRun, console: str) -> None:
    """Start a systemd timer that revokes the token if this process is killed."""
    cancel_revocation()
    # A unique name, because systemd refuses a new unit while one of the same name still exists.
    unit = f"{REVOCATION}-{os.getpid()}"
    timer = ["systemd-run", "--quiet", "--collect", "--unit", unit, "--on-active", TOKEN_LIFE]
    timer += ["/usr/bin/gitlab-rails", "runner", console, "revoke", run.endpoints["project"]]
    subprocess.run(timer, check=True)


def cancel_revocation() -> None:
    """Stop all such timers, also those of killed processes, and any running revocation.

    This is safe, because issuing a token revokes earlier ones. The exit status is ignored: there may be no timer.
    """
    subprocess.run(["systemctl", "stop", f"{REVOCATION}*"], stderr=subprocess.DEVNULL, check=False)
