"""Parser of .gitlab-ci.yml: merges `default` into jobs and reports the first error with GitLab's message.

Source: gitlab-org/gitlab lib/gitlab/ci/yaml_processor.rb, lib/gitlab/ci/config/entry/; doc/ci/yaml/_index.md. A keyword
that the lab does not support is rejected with a message of the lab, not ignored.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

STAGES = ("build", "test", "deploy")
DEFAULT_STAGE = "test"
GLOBAL = ("stages", "default", "variables", "workflow")
DEFAULT = ("image", "timeout", "tags")
JOB = (*DEFAULT, "stage", "script", "variables", "artifacts")
UNSUPPORTED = (
    *("include", "spec", "types", "pages", "image", "services", "before_script", "after_script", "artifacts", "cache"),
    *("timeout", "tags", "retry", "interruptible", "extends", "trigger", "run", "parallel", "rules", "only", "except"),
    *("when", "allow_failure", "needs", "dependencies", "environment", "resource_group", "release", "secrets", "hooks"),
    *("inherit", "id_tokens", "coverage", "start_in", "identity", "paths", "exclude", "untracked"),
)
"""Keywords that GitLab supports but the lab does not, except where one of the lists above contains them."""

DURATION = re.compile(r"(\d+) ?(second|minute|hour|day|week)s?")
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
FROM_SOURCE = re.compile(r'\$CI_PIPELINE_SOURCE == "(\w+)"')


class InvalidConfigurationError(Exception):
    """The message is the error that GitLab shows if it cannot create the pipeline."""


@dataclass(frozen=True)
class Job:
    """A job. `timeout` is in seconds; None means the project's timeout. `options` are image, script, variables, and
    dotenv and expire_in of artifacts.
    """

    name: str
    stage: str
    tags: Sequence[str]
    timeout: int | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Configuration:
    """Stages in order, jobs, and the pipeline sources that `workflow` allows (None: all)."""

    stages: Sequence[str]
    jobs: Sequence[Job]
    sources: Collection[str] | None


def parse(text: str) -> Configuration:
    """Parse the file's content. Raises InvalidConfigurationError."""
    content = _load(text)
    jobs = {str(name): value for name, value in content.items() if name not in GLOBAL}
    for key in jobs:
        _require(key not in UNSUPPORTED, f"the lab does not support {key}: in .gitlab-ci.yml")
    jobs = {name: value for name, value in jobs.items() if not name.startswith(".")}
    _require(bool(jobs), "jobs config should contain at least one visible job")
    default = content.get("default", {})
    _check_keys(default, "default", DEFAULT)
    given = content.get("stages", list(STAGES))
    _require(_strings(given), "stages config should be an array of strings")
    stages = [".pre", *given, ".post"]
    variables = _variables(content.get("variables", {}), "variables")
    made = [_job(name, value, default, variables) for name, value in jobs.items()]
    for job in made:
        available = f"available stages are {', '.join(stages)}"
        _require(job.stage in stages, f"{job.name} job: chosen stage {job.stage} does not exist; {available}")
    return Configuration(stages, made, _sources(content.get("workflow")))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidConfigurationError(message)


def _load(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidConfigurationError(f"(<unknown>): {error}") from None
    if not isinstance(content, dict):
        raise InvalidConfigurationError("Invalid configuration format")
    return content


def _check_keys(value: Any, where: str, known: Collection[str]) -> None:
    _require(isinstance(value, dict), f"{where} config should be a hash")
    for key in value:
        _require(key in known or key not in UNSUPPORTED, f"{where} the lab does not support {key}: in .gitlab-ci.yml")
        _require(key in known, f"{where} config contains unknown keys: {key}")


def _sources(workflow: Any) -> list[str] | None:
    """Return the sources in rules like `if: $CI_PIPELINE_SOURCE == "api"`; the lab supports no other rules."""
    if workflow is None:
        return None
    _check_keys(workflow, "workflow", ("rules",))
    found: list[str] = []
    for rule in workflow.get("rules") or ():
        _check_keys(rule, "workflow:rules:rule", ("if",))
        condition = FROM_SOURCE.fullmatch(str(rule.get("if")))
        _require(condition is not None, "workflow:rules:rule the lab supports if: only with $CI_PIPELINE_SOURCE")
        found += condition.groups() if condition else ()
    return found


def _job(name: str, value: Any, default: Mapping[str, Any], variables: Mapping[str, str]) -> Job:
    where = f"jobs:{name}"
    if isinstance(value, dict):
        _check_keys(value, where, JOB)
    _require(
        isinstance(value, dict) and "script" in value,
        f"jobs {name} config should implement the script:, run:, or trigger: keyword",
    )
    value = {**default, **value}
    for key, (check, kind) in CHECKS.items():
        _require(key not in value or check(value[key]), f"{where}:{key} config should be {kind}")
    return Job(
        name=name,
        stage=value.get("stage", DEFAULT_STAGE),
        tags=value.get("tags", []),
        timeout=_duration(value["timeout"]) if "timeout" in value else None,
        options={
            "image": _image(value.get("image"), f"{where}:image"),
            "script": _lines(value["script"]),
            "variables": {**variables, **_variables(value.get("variables", {}), f"{where}:variables")},
            **_artifacts(value.get("artifacts", {}), f"{where}:artifacts"),
        },
    )


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _script(value: Any) -> bool:
    return bool(value) and (isinstance(value, str) or _strings(value))


def _lines(script: str | list[str]) -> list[str]:
    return [script] if isinstance(script, str) else script


def _duration(value: Any) -> int | None:
    """Return a duration in seconds; None if the value is not a duration."""
    found = DURATION.fullmatch(str(value))
    return int(found[1]) * SECONDS[found[2]] if found else None


CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "stage": (lambda value: isinstance(value, str), "a string"),
    "script": (_script, "a string or a nested array of strings up to 10 levels deep"),
    "tags": (_strings, "an array of strings"),
    "timeout": (lambda value: bool(_duration(value)), "a duration, in the lab one number with its unit"),
}
"""Checks of the values of a job's keys, with the end of the error message."""


def _variables(value: Any, where: str) -> dict[str, str]:
    texts = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    _require(texts, f"{where} config should be a hash of key value pairs, in the lab of strings")
    _require("GIT_DEPTH" not in value, f"{where} the lab does not support GIT_DEPTH")
    return dict(value)


def _image(value: Any, where: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str) and value:
        return {"name": value}
    _require(isinstance(value, dict), f"{where} config should be a hash or a string")
    _check_keys(value, where, ("name", "entrypoint", "pull_policy"))
    _require(isinstance(value.get("name"), str), f"{where} name should be a string")
    _require(_strings(value.get("entrypoint", [])), f"{where} entrypoint should be an array of strings")
    return dict(value)


def _artifacts(value: Any, where: str) -> dict[str, Any]:
    _check_keys(value, where, ("reports", "expire_in"))
    reports = value.get("reports", {})
    _check_keys(reports, f"{where}:reports", ("dotenv",))
    if "expire_in" in value:
        _require(_duration(value["expire_in"]) is not None, f"{where} expire in should be a duration")
    return {"dotenv": _lines(reports.get("dotenv", [])), "expire_in": value.get("expire_in")}
