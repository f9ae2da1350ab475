"""What a .gitlab-ci.yml says: read, completed from `default`, and refused in GitLab's words.

Source: gitlab-org/gitlab lib/gitlab/ci/yaml_processor.rb, lib/gitlab/ci/config/entry/; doc/ci/yaml/_index.md. A keyword
that the lab does not play is refused, in words of the lab's own, rather than passed over.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab_gitlab import ci_rules

STAGES = ("build", "test", "deploy")
DEFAULT_STAGE = "test"
WHENS = ("on_success", "on_failure", "always", "manual")
RETRY_MAXIMUM = 2
NEEDS_MAXIMUM = 50
INHERITED = (
    *("image", "services", "before_script", "after_script", "artifacts", "cache", "timeout", "tags", "retry"),
    "interruptible",
)
GLOBAL = ("stages", "default", "variables", "workflow", *INHERITED)
JOB = (*INHERITED, "stage", "script", "variables", "needs", "dependencies", "rules", "only", "when", "allow_failure")
NOT_PLAYED = (
    *("include", "extends", "trigger", "run", "parallel", "except", "environment", "resource_group", "release"),
    *("secrets", "id_tokens", "inherit", "hooks", "pages", "coverage", "start_in", "identity", "spec", "types"),
)
ARTIFACT_KEYS = (
    "paths",
    "exclude",
    "untracked",
    "when",
    "name",
    "expire_in",
    "reports",
    "expose_as",
    "public",
    "access",
)
DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(weeks?|w|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|)(?=\W|\d|$)"
    r"\s*(?:and\s+|,\s*)?"
)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class InvalidConfigurationError(Exception):
    """`messages` are what GitLab shows as the errors of a pipeline that cannot be made."""

    def __init__(self, *messages: str) -> None:
        self.messages = messages
        super().__init__("; ".join(messages))


@dataclass(frozen=True)
class Need:
    """A job that another one waits for, and whether it gets what that one left."""

    job: str
    artifacts: bool = True
    optional: bool = False


@dataclass(frozen=True)
class Job:
    """`needs` None: the stages give the order. `timeout` in seconds, None where the project's holds."""

    name: str
    stage: str
    when: str
    allow_failure: bool
    rules: Sequence[Mapping[str, Any]] | None
    only: Sequence[str] | None
    variables: Mapping[str, Mapping[str, Any]]
    needs: Sequence[Need] | None
    dependencies: Sequence[str] | None
    tags: Sequence[str]
    timeout: int | None
    retry: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Pipeline:
    """Stages in their order, and what is to be done in them."""

    stages: Sequence[str]
    jobs: Sequence[Job]
    workflow: Sequence[Mapping[str, Any]] | None = None
    name: str | None = None
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def parse(text: str) -> Pipeline:
    """Raises InvalidConfigurationError."""
    content = _load(text)
    errors: list[str] = [f"the lab plays no {key}: in .gitlab-ci.yml" for key in content if key in NOT_PLAYED]
    default = content.get("default") or {}
    if not isinstance(default, dict):
        raise InvalidConfigurationError("default config should be a hash")
    errors += [f"default config contains unknown keys: {key}" for key in default if key not in INHERITED]
    stages = _stages(content.get("stages"), errors)
    variables = _variables(content.get("variables"), "variables", errors)
    jobs = {str(name): value for name, value in content.items() if name not in GLOBAL and name not in NOT_PLAYED}
    visible = {name: value for name, value in jobs.items() if not name.startswith(".")}
    if not visible:
        errors.append("jobs config should contain at least one visible job")
    for name, value in visible.items():
        if not isinstance(value, dict) or not ({"script", "run", "trigger"} & set(value)):
            errors.append(f"jobs {name} config should implement the script:, run:, or trigger: keyword")
    if errors:
        raise InvalidConfigurationError(*errors)
    inherited = {**{key: content[key] for key in INHERITED if key in content}, **default}
    made = [_job(name, {**inherited, **value}, variables, errors) for name, value in visible.items()]
    if not errors:
        _check_order(made, stages, errors)
    workflow = content.get("workflow") or {}
    if not isinstance(workflow, dict):
        errors.append("workflow config should be a hash")
        workflow = {}
    rules = _rules(workflow.get("rules"), "workflow:rules", errors)
    if errors:
        raise InvalidConfigurationError(*errors)
    return Pipeline(stages, made, rules, workflow.get("name"), variables)


def duration(text: object) -> int | None:
    """Seconds of a duration like `1h 30m`, `90 minutes`, `3600`; None for what is none."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str) or not text.strip():
        return None
    total, position = 0.0, 0
    while position < len(text.strip()):
        found = DURATION.match(text.strip(), position)
        if found is None or found.end() == position:
            return None
        total += float(found[1]) * UNITS[(found[2] or "s")[0]]
        position = found.end()
    return int(total)


def _load(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        context = f" {error.context}" if error.context else ""
        raise InvalidConfigurationError(f"(<unknown>): {error.problem}{context}{where}") from None
    except yaml.YAMLError as error:
        raise InvalidConfigurationError(f"(<unknown>): {error}") from None
    if not isinstance(content, dict):
        raise InvalidConfigurationError("Invalid configuration format")
    return content


def _stages(given: Any, errors: list[str]) -> list[str]:
    if given is None:
        given = STAGES
    elif not (isinstance(given, list) and all(isinstance(stage, str) for stage in given)):
        errors.append("stages config should be an array of strings")
        given = STAGES
    return [".pre", *(stage for stage in given if stage not in (".pre", ".post")), ".post"]


def _variables(given: Any, where: str, errors: list[str]) -> dict[str, dict[str, Any]]:
    """`value` by name; `raw` where `expand: false` says so."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        errors.append(f"{where} config should be a hash of key value pairs")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        options = value if isinstance(value, dict) else {"value": value}
        unknown = set(options) - {"value", "description", "expand", "options"}
        text = options.get("value", "")
        if unknown or isinstance(text, (dict, list)):
            errors.append(f"{where} config should be a hash of key value pairs")
            continue
        found[str(name)] = {"value": _text(text), "raw": options.get("expand") is False}
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _job(name: str, value: Mapping[str, Any], variables: Mapping[str, Any], errors: list[str]) -> Job:
    where = f"jobs:{name}"
    unplayed = [key for key in value if key in NOT_PLAYED]
    errors += [f"{where} the lab plays no {key}: in .gitlab-ci.yml" for key in unplayed]
    unknown = [key for key in value if key not in JOB and key not in unplayed]
    if unknown:
        errors.append(f"{where} config contains unknown keys: {', '.join(map(str, unknown))}")
    for key in ("rules",):
        if key in value and ("only" in value or "except" in value):
            errors.append(f"{where} config key may not be used with `rules`: only")
    when = value.get("when", "on_success")
    if when not in WHENS:
        errors.append(f"{where} when should be one of: on_success, on_failure, always, manual, delayed")
    allow_failure = value.get("allow_failure", when == "manual" and "rules" not in value)
    if not isinstance(allow_failure, bool):
        errors.append(f"{where} allow failure should be a boolean value")
    retry = _retry(value.get("retry"), where, errors)
    timeout = None
    if value.get("timeout") is not None:
        timeout = duration(value["timeout"])
        if timeout is None or timeout < 1:
            errors.append(f"{where}:timeout config should be a duration")
    only = value.get("only")
    if isinstance(only, str):
        only = [only]
    if only is not None and not (isinstance(only, list) and all(isinstance(entry, str) for entry in only)):
        errors.append(f"{where}:only config should be an array of strings or regular expressions")
    options: dict[str, Any] = {
        "image": _image(value.get("image"), f"{where}:image", errors),
        "services": [_image(service, f"{where}:services:service", errors) for service in _list(value.get("services"))],
        "script": [
            *_script(value.get("before_script"), f"{where}:before_script", errors),
            *_script(value.get("script"), f"{where}:script", errors, needed=True),
        ],
        "after_script": _script(value.get("after_script"), f"{where}:after_script", errors),
        "artifacts": _artifacts(value.get("artifacts"), f"{where}:artifacts", errors),
        "cache": _caches(value.get("cache")),
        "retry": retry,
    }
    return Job(
        name=name,
        stage=str(value.get("stage", DEFAULT_STAGE)),
        when=when,
        allow_failure=bool(allow_failure),
        rules=_rules(value.get("rules"), f"{where}:rules", errors),
        only=only,
        variables={**variables, **_variables(value.get("variables"), f"{where}:variables", errors)},
        needs=_needs(value.get("needs"), f"{where}:needs", errors),
        dependencies=_dependencies(value.get("dependencies"), where, errors),
        tags=_tags(value.get("tags"), where, errors),
        timeout=timeout,
        retry=retry,
        options=options,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _image(value: Any, where: str, errors: list[str]) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str) and value:
        return {"name": value}
    if not isinstance(value, dict):
        errors.append(f"{where} config should be a hash or a string")
        return None
    unknown = set(value) - {"name", "entrypoint", "alias", "command", "variables", "pull_policy", "docker", "ports"}
    if unknown:
        errors.append(f"{where} config contains unknown keys: {', '.join(sorted(map(str, unknown)))}")
    if not isinstance(value.get("name"), str):
        errors.append(f"{where} name should be a string")
    errors += _not_strings(value, where, "entrypoint", "command")
    return dict(value)


def _not_strings(value: Mapping[str, Any], where: str, *keys: str) -> list[str]:
    """Complaints about those of the keys that are there and hold no list of strings."""
    given = [key for key in keys if key in value]
    lists = [key for key in given if isinstance(value[key], list) and all(isinstance(part, str) for part in value[key])]
    return [f"{where} {key} should be an array of strings" for key in given if key not in lists]


def _script(value: Any, where: str, errors: list[str], *, needed: bool = False) -> list[str]:
    def flat(part: Any, depth: int = 0) -> list[str]:
        if isinstance(part, str):
            return [part]
        if isinstance(part, list) and depth < 10:
            return [line for entry in part for line in flat(entry, depth + 1)]
        raise TypeError

    if value is None and not needed:
        return []
    try:
        lines = flat(value)
    except TypeError:
        lines = None
    if lines is None or (needed and not lines):
        kind = "a string or a nested array" if needed else "a nested array"
        errors.append(f"{where} config should be {kind} of strings up to 10 levels deep")
        return []
    return lines


def _artifacts(value: Any, where: str, errors: list[str]) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        errors.append(f"{where} config should be a hash")
        return None
    unknown = [str(key) for key in value if key not in ARTIFACT_KEYS]
    if unknown:
        errors.append(f"{where} config contains unknown keys: {', '.join(unknown)}")
    found = dict(value)
    errors += _not_strings(found, where, "paths", "exclude")
    if found.get("when", "on_success") not in ("on_success", "on_failure", "always"):
        errors.append(f"{where} when should be one of: on_success, on_failure, always")
    if "expire_in" in found and found["expire_in"] != "never" and duration(found["expire_in"]) is None:
        errors.append(f"{where} expire in should be a duration")
    reports = found.get("reports")
    if reports is not None and not isinstance(reports, dict):
        errors.append(f"{where}:reports config should be a hash")
        found["reports"] = {}
    elif reports:
        errors += [f"{where}:reports the lab plays no {kind}:" for kind in reports if kind not in ("dotenv", "junit")]
        found["reports"] = {kind: _list(report) for kind, report in reports.items()}
    return found


def _caches(value: Any) -> list[dict[str, Any]]:
    return [dict(cache) for cache in _list(value) if isinstance(cache, dict)]


def _retry(value: Any, where: str, errors: list[str]) -> int:
    if value is None:
        return 0
    if isinstance(value, dict):
        value = value.get("max", 0)
    if not isinstance(value, int) or isinstance(value, bool):
        errors.append(f"{where}:retry config has to be either an integer or a hash")
        return 0
    if value > RETRY_MAXIMUM:
        errors.append(f"{where}:retry config must be less than or equal to {RETRY_MAXIMUM}")
    if value < 0:
        errors.append(f"{where}:retry config must be greater than or equal to 0")
    return value


def _needs(value: Any, where: str, errors: list[str]) -> list[Need] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        errors.append(f"{where} config can only be a hash or an array")
        return None
    found = []
    for entry in value:
        if isinstance(entry, str):
            found.append(Need(entry))
        elif isinstance(entry, dict) and isinstance(entry.get("job"), str):
            found.append(Need(entry["job"], entry.get("artifacts", True) is True, entry.get("optional") is True))
        else:
            errors.append(f"{where} config the lab plays needs: of jobs of the same pipeline only")
    return found


def _dependencies(value: Any, where: str, errors: list[str]) -> list[str] | None:
    if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        errors.append(f"{where} dependencies should be an array of strings")
        return None
    return value


def _tags(value: Any, where: str, errors: list[str]) -> list[str]:
    if value is not None and not (isinstance(value, list) and all(isinstance(tag, str) for tag in value)):
        errors.append(f"{where}:tags config must be an array of strings")
        return []
    return value or []


def _rules(value: Any, where: str, errors: list[str]) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(rule, dict) for rule in value):
        errors.append(f"{where} config should be an array of hashes")
        return None
    for rule in value:
        unplayed = set(rule) - {"if", "when", "allow_failure", "variables"}
        errors += [f"{where}:rule the lab plays no {key}:" for key in sorted(map(str, unplayed))]
        if "if" in rule and not ci_rules.is_valid(rule["if"]):
            errors.append(f"{where}:rule if invalid expression syntax")
        if rule.get("when", "on_success") not in (*WHENS, "never"):
            errors.append(f"{where}:rule when should be one of: on_success, on_failure, always, never, manual, delayed")
    return value


def _check_order(jobs: Sequence[Job], stages: Sequence[str], errors: list[str]) -> None:
    by_name = {job.name: job for job in jobs}
    errors += [
        f"{job.name} job: chosen stage {job.stage} does not exist; available stages are {', '.join(stages)}"
        for job in jobs
        if job.stage not in stages
    ]
    if errors:
        return
    places = {job.name: stages.index(job.stage) for job in jobs}
    for job in jobs:
        errors += [
            f"{job.name} job: {text}" for text in (*_wrong_needs(job, places), *_wrong_dependencies(job, places))
        ]
    if not errors and (circle := _circle(by_name)):
        errors.append(f"The pipeline has circular dependencies: {circle}")


def _wrong_needs(job: Job, places: Mapping[str, int]) -> Iterator[str]:
    """`places` are those of all jobs' stages by the jobs' names."""
    if job.needs is not None and len(job.needs) > NEEDS_MAXIMUM:
        yield (
            f"one job can only need {NEEDS_MAXIMUM} others, but you have listed {len(job.needs)}. "
            "See needs keyword documentation for more details"
        )
    for need in job.needs or ():
        if need.job not in places:
            if not need.optional:
                yield f"undefined need: {need.job}"
        elif places[need.job] > places[job.name]:
            yield f"need {need.job} is not defined in current or prior stages"


def _wrong_dependencies(job: Job, places: Mapping[str, int]) -> Iterator[str]:
    for name in job.dependencies or ():
        if name not in places:
            yield f"undefined dependency: {name}"
        elif places[name] >= places[job.name]:
            yield f"dependency {name} is not defined in current or prior stages"
        elif job.needs is not None and name not in {need.job for need in job.needs}:
            yield f"dependency {name} should be part of needs"


def _circle(jobs: Mapping[str, Job]) -> str | None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> str | None:
        if name in path:
            return "self-dependency: " + name if path[-1] == name else ", ".join((*path[path.index(name) :], name))
        if name in done or name not in jobs:
            return None
        for need in jobs[name].needs or ():
            if found := visit(need.job, (*path, name)):
                return found
        done.add(name)
        return None

    return next((found for name in jobs if (found := visit(name, ()))), None)
