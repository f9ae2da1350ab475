"""Scripts for a job's containers, as the real runner's writer for bash writes them (shells/bash.go, abstract.go)."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab_gitlab_runner.trace import GREEN, RESET
from lab_gitlab_runner.version import architecture, version

DETECT_SHELL = "\n".join(
    [
        *(
            f"{'if' if number == 0 else 'elif'} [ -x {shell} ]; then\n\texec {shell} "
            for number, shell in enumerate(
                (
                    *("/usr/local/bin/bash", "/usr/bin/bash", "/bin/bash", "/usr/local/bin/sh", "/usr/bin/sh"),
                    *("/bin/sh", "/busybox/sh"),
                )
            )
        ),
        "else\n\techo shell not found\n\texit 1\nfi\n\n",
    ]
)
"""What a job's container runs: whichever shell its image has."""

LOCKS = ("index.lock", "shallow.lock", "HEAD.lock", "hooks/post-checkout", "config.lock")

Variables = Sequence[Mapping[str, Any]]


def finished(lines: Iterable[str]) -> str:
    """The script that goes to the shell's standard input; the commands themselves have an empty one."""
    body = "\n".join(lines) + "\n"
    return (
        "#!/usr/bin/env bash\n\ntrap exit 1 TERM\n\n"
        "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n"
        f"set +o noclobber\n: | eval {shlex.quote(body)}\nexit 0\n"
    )


def prepare(hostname: str) -> list[str]:
    return [f'echo "Running on $(hostname) via {hostname}..."']


def exports(variables: Variables, temporary: str) -> list[str]:
    """A variable of type file is a file, and its name is the value."""
    lines = []
    for variable in variables:
        key, value = variable["key"], str(variable["value"])
        if variable.get("file"):
            lines += [
                f'mkdir -p "{temporary}"',
                f"printf '%s' {shlex.quote(value)} > \"{temporary}/{key}\"",
                f'export {key}="{temporary}/{key}"',
            ]
        else:
            lines.append(f"export {key}={shlex.quote(value)}")
    return lines


def get_sources(job: Mapping[str, Any], directory: str, temporary: str, strategy: str) -> list[str]:
    """What git does before a job; `none` and `empty` leave the repository alone."""
    if strategy in ("none", "empty"):
        words = "Skipping Git repository setup"
        empty = strategy == "empty"
        return [
            notice(words + (" and creating an empty build directory" if empty else "")),
            *([command("rm", "-r", "-f", directory)] if empty else []),
            command("mkdir", "-p", directory),
            notice("Skipping Git checkout"),
            notice("Skipping Git submodules setup"),
        ]
    info, template = job["git_info"], f"{temporary}/git-template"
    sha, depth = info["sha"], int(info.get("depth") or 0)
    agent = f"http.userAgent=gitlab-runner {version()} linux/{architecture()}"
    fetch = ["git", "-c", agent, "fetch", "origin", "--no-recurse-submodules", *info["refspecs"]]
    fetch += [*(["--depth", str(depth)] if depth else []), "--prune", "--quiet"]
    return [
        *([command("rm", "-r", "-f", directory)] if strategy == "clone" else []),
        notice(f"Fetching changes with git depth set to {depth}..." if depth else "Fetching changes..."),
        command("mkdir", "-p", template),
        *(command("rm", "-f", f"{directory}/.git/{name}") for name in LOCKS),
        command("rm", "-f", f"{template}/config"),
        command("rm", "-f", f"{directory}/.git/config"),
        command("rm", "-r", "-f", f"{directory}/.git/hooks"),
        command("git", "config", "--global", "--add", "safe.directory", directory),
        command("git", "config", "-f", f"{template}/config", "init.defaultBranch", "none"),
        command("git", "config", "-f", f"{template}/config", "fetch.recurseSubmodules", "false"),
        command("git", "config", "-f", f"{template}/config", "credential.interactive", "never"),
        command("git", "init", directory, "--template", template),
        command("cd", directory),
        f"if {command('git', 'remote', 'add', 'origin', info['repo_url'])} >/dev/null 2>&1; then",
        f"  {notice('Created fresh repository.')}",
        "else",
        f"  {command('git', 'remote', 'set-url', 'origin', info['repo_url'])}",
        "fi",
        *([command(*fetch)] if depth else whole_history(fetch)),
        notice(f"Checking out {sha[:8]} as detached HEAD (ref is {info['ref']})..."),
        command("git", "-c", "submodule.recurse=false", "checkout", "-f", "-q", sha),
        command("git", "clean", "-ffdx"),
        notice("Skipping Git submodules setup"),
    ]


def whole_history(fetch: Sequence[str]) -> list[str]:
    """Fetch all there is, also where a job before cloned less of it."""
    return [
        "if [ -e .git/shallow ]; then",
        f"  {command(*fetch, '--unshallow')}",
        "else",
        f"  {command(*fetch)}",
        "fi",
    ]


def user_script(lines: Iterable[str], directory: str) -> list[str]:
    """Each line is shown before it runs."""
    written = [command("cd", directory)]
    for line in lines:
        text = line.strip()
        first, several, _ = text.partition("\n")
        if not text:
            written.append("echo")
            continue
        written += [notice(f"$ {first} # collapsed multi-line command" if several else f"$ {text}"), text]
    return written


def cleanup(temporary: str) -> list[str]:
    return [command("rm", "-r", "-f", temporary)]


def command(*words: str) -> str:
    return shlex.join(words)


def notice(text: str) -> str:
    return f"echo {shlex.quote(GREEN + text + RESET)}"
