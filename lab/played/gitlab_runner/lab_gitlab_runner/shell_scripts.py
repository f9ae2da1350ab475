"""Scripts for a job's containers, as the real runner generates them for bash (shells/bash.go, abstract.go)."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab_runner import VERSION
from lab_gitlab_runner.log import RESET
from lab_gitlab_runner.trace import GREEN

SHELLS = (
    *("/usr/local/bin/bash", "/usr/bin/bash", "/bin/bash", "/usr/local/bin/sh", "/usr/bin/sh", "/bin/sh"),
    "/busybox/sh",
)
DETECT_SHELL = "\n".join(f"[ -x {shell} ] && exec {shell}" for shell in SHELLS) + "\necho shell not found\nexit 1"
"""The command of a job's container: the first shell that its image has."""

LOCKS = ("index.lock", "shallow.lock", "HEAD.lock", "config.lock", "config", "hooks")
"""Files in .git that are removed from a kept checkout before git runs in it."""


def finished(lines: Iterable[str]) -> str:
    """Return the script for the shell's standard input; its commands have an empty standard input."""
    body = "\n".join(lines) + "\n"
    return (
        "#!/usr/bin/env bash\n\ntrap exit 1 TERM\n\n"
        "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n"
        f"set +o noclobber\n: | eval {shlex.quote(body)}\nexit 0\n"
    )


def exports(variables: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """Return the commands that set the variables. `files` are the paths of those that are handed over as files."""
    lines = [f"export {key}={shlex.quote(value)}" for key, value in variables.items() if key not in files]
    for key, path in files.items():
        lines.append(command("mkdir", "-p", path.rpartition("/")[0]))
        lines.append(f"printf '%s' {shlex.quote(variables[key])} > {shlex.quote(path)}")
        lines.append(f"export {key}={shlex.quote(path)}")
    return lines


def get_sources(info: Mapping[str, Any], directory: str, strategy: str, ca_file: str | None) -> list[str]:
    """Return the git commands before a job. Only the strategy `clone` deletes an earlier job's checkout. `ca_file`
    contains the certificates that git trusts at GitLab's address, and nowhere else (`writeGitSSLConfig`).
    """
    remote = urlsplit(info["repo_url"])
    own = f"http.{remote.scheme}://{remote.netloc.rpartition('@')[2]}.sslCAInfo"
    depth = int(info.get("depth") or 0)
    fetch = ["git", "-c", f"http.userAgent=gitlab-runner {VERSION} linux/amd64", "fetch", "origin", *info["refspecs"]]
    fetch += [*(["--depth", str(depth)] if depth else []), "--prune", "--quiet"]
    return [
        "export GIT_TERMINAL_PROMPT=0",
        *([command("git", "config", "--global", own, ca_file)] if ca_file else []),
        *([command("rm", "-r", "-f", directory)] if strategy == "clone" else []),
        notice(f"Fetching changes with git depth set to {depth}..." if depth else "Fetching changes..."),
        command("rm", "-r", "-f", *(f"{directory}/.git/{name}" for name in LOCKS)),
        command("git", "config", "--global", "--add", "safe.directory", directory),
        command("git", "init", "--quiet", directory),
        command("cd", directory),
        f"{command('git', 'remote', 'add', 'origin', info['repo_url'])} 2>/dev/null ||",
        command("git", "remote", "set-url", "origin", info["repo_url"]),
        command(*fetch),
        notice(f"Checking out {info['sha'][:8]} as detached HEAD (ref is {info['ref']})..."),
        command("git", "checkout", "-f", "-q", info["sha"]),
        command("git", "clean", "-ffdx"),
    ]


def user_script(lines: Iterable[str], directory: str) -> list[str]:
    """Return the job's script, which prints each command before running it."""
    written = [command("cd", directory)]
    for line in lines:
        first, several, _ = line.strip().partition("\n")
        written += [notice(f"$ {first}{' # collapsed multi-line command' if several else ''}"), line.strip()]
    return written


def command(*words: str) -> str:
    return shlex.join(words)


def notice(text: str) -> str:
    return f"echo {shlex.quote(GREEN + text + RESET)}"
