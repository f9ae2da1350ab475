"""Reads the output of GitLab's rake tasks. Each function returns what was checked, or raises FailedCheckError.

Sources, all of GitLab 17.10: lib/gitlab/doctor/secrets.rb, lib/tasks/gitlab/git.rake, lib/gitlab/verify/rake_task.rb,
lib/system_check/simple_executor.rb and the checks next to it.
"""

import re
from typing import List

from .outcomes import FailedCheckError, listed, not_understood, number

LOGGER = re.compile(r"^[A-Z], \[[^\]]*\] +[A-Z]+ -- : ?", re.MULTILINE)
"""What Ruby's Logger puts before a message."""

MISSING_CHECKSUM = "Checksum missing"
"""GitLab could read the file, but has not stored a checksum of it (lib/gitlab/verify/batch_verifier.rb)."""

HEALTHY = re.compile(r"(yes|OK)( \(.*\))?|skipped.*|can't check.*|warning|[1-9]\d*|\d+/\d+|Finished")
"""What gitlab:check prints for a check that passed, or that does not apply."""
HEALTHY_IF_NO = "Database contains orphaned GroupMembers?"
SELF_CHECK = "gitlab-shell self-check successful"
JUDGED = ("GitLab Shell", "Gitaly", "Sidekiq", "GitLab App")
"""The parts of gitlab:check that are about the copy. A silenced copy reaches neither a mailbox nor LDAP."""


def secrets(text: str) -> str:
    """`gitlab:doctor:secrets VERBOSE=1`: all encrypted values in the database can be decrypted."""
    text = LOGGER.sub("", text)
    models = re.findall(r"^- (.+) failures: (\d+)$", text, re.MULTILINE)
    totals = re.findall(r"^Total: (\d+) row\(s\) affected$", text, re.MULTILINE)
    if len(totals) != 1 or not models or text.rstrip().splitlines()[-1:] != ["Done!"]:
        not_understood(_end(text))
    if int(totals[0]) or any(int(failures) for _, failures in models):
        rows = re.findall(r"^(?:  - |> )(.+)$", text, re.MULTILINE)
        raise FailedCheckError(f"{number(int(totals[0]), 'row')} cannot be decrypted: {listed(rows)}")
    return f"{number(len(models), 'kind')} of records"


def repositories(text: str) -> str:
    """`gitlab:git:fsck`: Git finds no error in the repository of any project."""
    checked = re.findall("^Performed integrity check for (.+)$", text, re.MULTILINE)
    _, header, errors = text.partition("The following repositories reported errors:\n")
    if header:
        raise FailedCheckError(listed(re.split("^- ", errors, flags=re.MULTILINE)[1:] or [errors]))
    if text.rstrip().splitlines()[-1:] != ["Done"]:
        not_understood(_end(text))
    return number(len(checked), "project")


def files(text: str) -> str:
    """`gitlab:uploads:check VERBOSE=1` and the like: the content of every file has the checksum in the database."""
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith("Checking integrity of ") or lines[-1] != "Done!":
        not_understood(_end(text))
    failures, found = 0, []
    for line in lines[1:-1]:
        batch = re.match(r"- \d+\.\.\d+: Failures: (\d+)$", line)
        if batch:
            failures += int(batch.group(1))
        elif re.match(r" *- .+?: .", line):
            found.append(line.strip()[2:])
        elif not found:  # otherwise it may continue an error message
            not_understood(line)
    wrong = [each for each in found if MISSING_CHECKSUM not in each]
    if wrong:
        raise FailedCheckError(f"{number(len(wrong), 'file')}: {listed(wrong)}")
    if len(found) != failures:
        raise FailedCheckError(f"GitLab reports {number(failures, 'failure')}, but lists {len(found)}")
    return f"{number(len(found), 'file')} without a checksum in GitLab" if found else ""


def system(text: str) -> str:
    """`gitlab:check SANITIZE=true`: GitLab's own checks of its parts pass."""
    checked, problems = 0, []
    for part in JUDGED:
        found = re.search(
            rf"^Checking {part} \.\.\.$(.*)^Checking {part} \.\.\. Finished$", text, re.MULTILINE | re.DOTALL
        )
        if not found:
            not_understood(f"no complete part: Checking {part}")
        results = [line.rpartition(" ... ")[::2] for line in found.group(1).splitlines() if " ... " in line.rstrip()]
        problems += [f"{name}: {result}" for name, result in results if not _healthy(name, result)]
        checked += len(results)
        if "Please fix the error above" in found.group(1) and not problems:
            problems.append(f"{part} has an error to fix")
    if SELF_CHECK not in text:
        problems.append("gitlab-shell's own check failed")
    if problems:
        raise FailedCheckError(listed(problems))
    return number(checked, "result")


def _healthy(name: str, result: str) -> bool:
    if name == HEALTHY_IF_NO:
        return result.strip() == "no"
    return bool(HEALTHY.fullmatch(result.strip()))


def _end(text: str) -> str:
    """The last lines, in one."""
    lines: List[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-3:])
