"""The checks on the server of a restored copy."""

import json
import os
import pwd
import re
from typing import Any, Dict, Iterator, Mapping, Optional

from programs.volume_backup import manifest

from . import rake_output
from .commands import output, run
from .comparison import known, missing_rows, wal_bytes
from .outcomes import FailedCheckError, listed, not_understood, number

MOUNTPOINT = "/srv/gitlab"
REPOSITORIES = "/var/opt/gitlab/git-data/repositories"
DATABASE_SOCKETS = "/var/opt/gitlab/postgresql"
PG_DUMP = "/opt/gitlab/embedded/bin/pg_dump"
DUMP_COMPLETE = "-- PostgreSQL database dump complete"
GIT = "/opt/gitlab/embedded/bin/git"
# As Gitaly, which knows of old repositories with these faults (internal/git/gitcmd/command_description.go).
TOLERATED = ("badTimezone", "missingSpaceBeforeDate", "zeroPaddedFilemode")
OUTSIDE = {"-4": "192.0.2.1", "-6": "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849), which are routed as any other address of the internet."""
IPV6 = "/proc/net/if_inet6"
REFUSED = re.compile(r"RTNETLINK answers: (No route to host|Network is unreachable|Permission denied)")


class Server:
    """The server of a copy, with the task of recovery/copy_checks.py. GitLab's slow console is started once."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.task = task
        self._manifest: Optional[Dict[str, Any]] = None
        self._answer: Optional[Dict[str, Any]] = None

    def limit(self, check: str) -> float:
        """The time limit of a check in seconds."""
        return float(self.task["limits"][check])

    @property
    def manifest(self) -> Dict[str, Any]:
        """The manifest on the volume. Raises BackupError."""
        if self._manifest is None:
            self._manifest = manifest.read(MOUNTPOINT)
        return self._manifest

    @property
    def console(self) -> Dict[str, Any]:
        """The answer of remote/inspect_copy.rb. Raises FailedCheckError or BackupError."""
        if self._answer is None:
            before = str(known(self.manifest, "written_at"))
            command = ("gitlab-rails", "runner", self.task["console"], self.task["project"], self.task["runner_name"])
            lines = output(*command, before, limit=self.limit("silence")).strip().splitlines()
            if not lines or not lines[-1].startswith("{"):
                not_understood(" / ".join(lines[-3:]))
            self._answer = dict(json.loads(lines[-1]))
        return self._answer

    def facts(self) -> Dict[str, Any]:
        """The newest event of the manifest, and the last image that the acceptance pushed before; both are optional."""
        canary = (self._answer or {}).get("canary") or {}
        return {"newest_event": (self._manifest or {}).get("newest_event"), "canary": canary.get("pushed")}


def silence(server: Server) -> str:
    """GitLab sends nothing and starts nothing: Silent Mode, no schedules, no jobs, no runner but the copy's own."""
    found = server.console
    problems = [] if found["silentMode"] is True else ["Silent Mode is off"]
    kinds = ("schedules", "jobs", "runners")
    problems += [f"active {kind}: {listed([str(each) for each in found[kind]])}" for kind in kinds if found[kind]]
    if problems:
        raise FailedCheckError("; ".join(problems))
    return "Silent Mode"


def egress(server: Server) -> str:
    """GitLab's user cannot reach the internet."""
    user = str(pwd.getpwnam("git").pw_uid)
    for version, address in OUTSIDE.items():
        if version == "-6" and not os.path.exists(IPV6):
            continue  # a kernel without IPv6 does not know such addresses
        done = run("ip", version, "route", "get", address, "uid", user, limit=server.limit("egress"))
        if done.status == 0:
            raise FailedCheckError(f"GitLab's user can reach {address}: {' '.join(done.out.split())}")
        if not REFUSED.search(done.errors):
            not_understood(done.reason)
    return ""


def token_key(server: Server) -> str:
    """The copy signs with a new key the tokens for its registry: production's registry rejects them."""
    if manifest.token_certificate() == known(server.manifest, "token_certificate_sha256"):
        raise FailedCheckError(
            f"{manifest.TOKEN_CERTIFICATE} is that of the backup: the registry of production accepts its tokens"
        )
    return ""


def contents(server: Server) -> str:
    """The database contains what it contained when the manifest was written."""
    limit = server.limit("contents")
    expected = known(server.manifest, "tables")
    problems = missing_rows(expected, manifest.rows(expected, limit=limit))
    event = server.manifest.get("newest_event")  # a new GitLab has no events
    newest = manifest.newest_event(limit=limit)
    if event and (newest or "") < event:
        problems.append(f"the newest event is of {newest or 'no time'}, in the manifest of {event}")
    position, reached = known(server.manifest, "wal_position"), manifest.wal_position(limit=limit)
    if wal_bytes(reached) < wal_bytes(position):
        problems.append(f"the write-ahead log ends at {reached}, in the manifest at {position}")
    if problems:
        raise FailedCheckError(listed(problems))
    return f"{number(sum(expected.values()), 'row')}; newest event {event or 'none'}"


def secrets_file(server: Server) -> str:
    """GitLab has the keys with which the data of the backup is encrypted."""
    if manifest.rails_secrets() != known(server.manifest, "rails_secrets_sha256"):
        raise FailedCheckError(f"{manifest.SECRETS} has other keys than when the backup was made")
    return ""


def secrets(server: Server) -> str:
    """All encrypted values in the database can be decrypted."""
    return rake_output.secrets(_rake(server, "secrets", "gitlab:doctor:secrets", "VERBOSE=1"))


def database(server: Server) -> str:
    """All rows can be read; a dump reads each of them."""
    command = ("runuser", "-u", "gitlab-psql", "--", PG_DUMP, "-h", DATABASE_SOCKETS, manifest.DATABASE)
    end = ("bash", "-o", "pipefail", "-c", '"$@" | tail -c 1000', "dump")
    if DUMP_COMPLETE not in output(*end, *command, limit=server.limit("database")):
        not_understood("the dump is not complete")
    return ""


def repositories(server: Server) -> str:
    """Git finds no error in the repository of any project."""
    return rake_output.repositories(_rake(server, "repositories", "gitlab:git:fsck"))


def other_repositories(server: Server) -> str:
    """Git finds no error in wikis, snippets, designs and pools, which gitlab:git:fsck does not check."""
    broken, checked = [], 0
    options = [word for fault in TOLERATED for word in ("-c", f"fsck.{fault}=ignore")]
    for folder in folders_of_repositories():
        command = (GIT, f"--git-dir={folder}", *options, "fsck", "--no-dangling", "--no-progress")
        done = run(*command, limit=server.limit("other-repositories"))
        checked += 1
        if done.status != 0:
            broken.append(f"{os.path.relpath(folder, REPOSITORIES)}: {done.reason}")
    if broken:
        raise FailedCheckError(listed(broken))
    return number(checked, "repository", "repositories")


def folders_of_repositories() -> Iterator[str]:
    """The repositories that do not belong to a project directly. Project repositories are @hashed/ab/cd/SHA256.git."""

    def fail(error: OSError) -> None:
        raise error

    for folder, names, _ in os.walk(REPOSITORIES, onerror=fail):
        for name in sorted(names):
            if name == "+gitaly":
                names.remove(name)  # Gitaly's temporary files
            elif name.endswith(".git"):
                names.remove(name)
                if not re.search(r"/@hashed/../../[0-9a-f]{64}\.git$", f"{folder}/{name}"):
                    yield f"{folder}/{name}"


def uploads(server: Server) -> str:
    """All uploads are complete."""
    return _files(server, "uploads")


def lfs(server: Server) -> str:
    """All objects of Git LFS are complete."""
    return _files(server, "lfs")


def artifacts(server: Server) -> str:
    """All artifacts and logs of jobs are complete."""
    return _files(server, "artifacts")


def secure_files(server: Server) -> str:
    """All secure files are complete. Old versions of GitLab have no such check."""
    command = ("gitlab-rake", "gitlab:ci_secure_files:check", "VERBOSE=1")
    done = run(*command, limit=server.limit("secure-files"))
    if "Don't know how to build task" in done.errors:
        return "skipped: this version of GitLab has no check of secure files"
    if done.status != 0:
        raise FailedCheckError(f"{' '.join(command[:2])} failed with exit status {done.status}: {done.reason}")
    return rake_output.files(done.out)


def system(server: Server) -> str:
    """GitLab's own checks pass."""
    return rake_output.system(_rake(server, "system", "gitlab:check", "SANITIZE=true"))


def job_log(server: Server) -> str:
    """The log of the job is there that pushed the acceptance's last image before the backup."""
    canary = server.console["canary"]
    if canary is None:
        return "skipped: no pipeline of the acceptance had passed before the backup"
    if not canary["pushed"]:
        raise FailedCheckError(
            f"the log of the acceptance's pipeline {canary['pipeline']} has {canary['log']} bytes and names no image"
        )
    return f"pipeline {canary['pipeline']}"


def _files(server: Server, kind: str) -> str:
    return rake_output.files(_rake(server, kind, f"gitlab:{kind}:check", "VERBOSE=1"))


def _rake(server: Server, check: str, *arguments: str) -> str:
    return output("gitlab-rake", *arguments, limit=server.limit(check))


CHECKS = (
    ("silence", silence),
    ("egress", egress),
    ("token-key", token_key),
    ("contents", contents),
    ("secrets-file", secrets_file),
    ("secrets", secrets),
    ("database", database),
    ("repositories", repositories),
    ("other-repositories", other_repositories),
    ("uploads", uploads),
    ("lfs", lfs),
    ("artifacts", artifacts),
    ("secure-files", secure_files),
    ("system", system),
    ("job-log", job_log),
)
