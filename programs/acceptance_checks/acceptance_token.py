"""The token of the acceptance's project: issued by GitLab's console, revoked however this process ends."""

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
TOKEN_LIFE = "15min"  # until the machine itself revokes the token, if this process was killed


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep others from doing the same on this machine. Raises CheckError when another does already."""
    with open(TOKEN_LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckError("the acceptance's pipeline is being run by somebody else at this moment") from None
        yield


def issue_token(run: CheckRun, console: str) -> Dict[str, Any]:
    """A `token` for the acceptance's project, what GitLab knows of the `runner`, and those of its `settings` that the
    task asks for. Raises CheckError.

    `console` is the program for GitLab's console, remote/acceptance_token.rb.
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
        raise CheckError("GitLab's console made no token; the lines above say why")
    issued: Dict[str, Any] = json.loads(answer)
    return issued


def schedule_revocation(run: CheckRun, console: str) -> None:
    """Have the machine itself revoke the token if this process is killed."""
    cancel_revocation()
    # A name of its own: systemd has no second unit of the name of one that is not quite gone.
    unit = f"{REVOCATION}-{os.getpid()}"
    timer = ["systemd-run", "--quiet", "--collect", "--unit", unit, "--on-active", TOKEN_LIFE]
    timer += ["/usr/bin/gitlab-rails", "runner", console, "revoke", run.endpoints["project"]]
    subprocess.run(timer, check=True)


def cancel_revocation() -> None:
    """Stop every such timer, also a killed process's, and a revocation under way: issuing a token revokes earlier ones.

    The exit status is of no interest: there may be none.
    """
    subprocess.run(["systemctl", "stop", f"{REVOCATION}*"], stderr=subprocess.DEVNULL, check=False)
