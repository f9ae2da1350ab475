"""Variables that a job runs with: GitLab's own, those of the file, of what it depends on, and of who started it.

Source: gitlab-org/gitlab lib/gitlab/ci/variables/builder.rb, app/models/ci/build.rb (`persisted_variables`),
doc/ci/variables/predefined_variables.md of 17.10.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lab_gitlab import projects, repositories
from lab_gitlab.application import Application
from lab_gitlab.records import Record
from lab_gitlab.version import revision, version

JOB_USER = "gitlab-ci-token"

Variable = dict[str, Any]


def for_job(
    app: Application,
    project: Record,
    pipeline: Record,
    job: Record,
    *,
    user: Record,
    runner: Record,
    token: str,
    inherited: Iterable[Variable],
) -> list[Variable]:
    """In the order in which a later one beats an earlier one; `inherited` is what other jobs left in dotenv files."""
    url = projects.web_url(app, project)
    own = [
        _public("CI_PIPELINE_ID", pipeline["id"]),
        _public("CI_PIPELINE_URL", f"{url}/-/pipelines/{pipeline['id']}"),
        _public("CI_JOB_ID", job["id"]),
        _public("CI_JOB_URL", f"{url}/-/jobs/{job['id']}"),
        _secret("CI_JOB_TOKEN", token),
        _public("CI_JOB_STARTED_AT", f"{(job['started_at'] or '')[:19]}Z"),
        _public("CI_REGISTRY_USER", JOB_USER),
        _secret("CI_REGISTRY_PASSWORD", token),
        {**_secret("CI_REPOSITORY_URL", repository_url(app, project, token)), "masked": False},
        _public("CI_DEPENDENCY_PROXY_USER", JOB_USER),
        _secret("CI_DEPENDENCY_PROXY_PASSWORD", token),
        _public("CI_JOB_NAME", job["name"]),
        _public("CI_JOB_NAME_SLUG", slug(job["name"])),
        _public("CI_JOB_STAGE", job["stage"]),
        *([_public("CI_JOB_MANUAL", "true")] if job["job_when"] == "manual" else []),
        _public("CI_NODE_TOTAL", 1),
        *_predefined(app, project, pipeline),
        _public("CI_RUNNER_ID", runner["id"]),
        _public("CI_RUNNER_DESCRIPTION", runner["description"] or ""),
        _public("CI_RUNNER_TAGS", json.dumps(runner["tag_list"])),
        _public("CI_PIPELINE_IID", pipeline["iid"]),
        _public("CI_PIPELINE_CREATED_AT", f"{pipeline['created_at'][:19]}Z"),
        _public("CI_PIPELINE_NAME", pipeline["name"] or ""),
        _public("GITLAB_USER_ID", user["id"]),
        _public("GITLAB_USER_EMAIL", user["email"] or ""),
        _public("GITLAB_USER_LOGIN", user["username"]),
        _public("GITLAB_USER_NAME", user["name"]),
    ]
    written = [
        {**_public(name, value["value"]), **({"raw": True} if value["raw"] else {})}
        for name, value in job["options"]["variables"].items()
    ]
    given = [
        {
            **_public(variable["key"], variable["value"]),
            "public": False,
            **({"file": True} if variable.get("variable_type") == "file" else {}),
            **({"raw": True} if variable.get("raw") else {}),
        }
        for variable in pipeline["variables"] or ()
    ]
    return _expanded([*own, *written, *inherited, *given])


def _expanded(variables: list[Variable]) -> list[Variable]:
    """References to other variables filled in, those of what is not known left alone (`sort_and_expand_all`)."""
    known = {variable["key"]: variable for variable in variables}

    def text(variable: Variable, within: tuple[str, ...]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            other = known.get(name)
            return match[0] if other is None or name in within or match[0] == "$$" else text(other, (*within, name))

        written = str(variable["value"])
        return written if variable.get("raw") else re.sub(r"\$\$|\$(?:\{(\w+)\}|(\w+))", value, written)

    return [{**variable, "value": text(variable, (variable["key"],))} for variable in variables]


def for_rules(
    app: Application, project: Record, about: Mapping[str, Any], written: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What conditions may ask for before there is a pipeline."""
    known = {variable["key"]: variable["value"] for variable in _predefined(app, project, about)}
    known |= {name: str(value["value"]) for name, value in written.items()}
    return known | {str(variable["key"]): str(variable["value"]) for variable in about["variables"]}


def repository_url(app: Application, project: Record, token: str) -> str:
    scheme, _, rest = f"{projects.web_url(app, project)}.git".partition("://")
    return f"{scheme}://{JOB_USER}:{token}@{rest}"


def slug(text: str) -> str:
    """As in names of hosts (Gitlab::Utils.slugify)."""
    return re.sub(r"[^a-z0-9]", "-", text.lower())[:63].strip("-")


def _predefined(app: Application, project: Record, pipeline: Mapping[str, Any]) -> list[Variable]:
    settings = app.settings["gitlab"]
    url, port = settings["url"], settings["port"]
    host = settings["host"] if port == (443 if settings["https"] else 80) else f"{settings['host']}:{port}"
    namespace = projects.NAMESPACE.select(app, {"id": project["namespace_id"]})[0]
    major, minor, patch = version().split(".")[:3]
    commit = repositories.commit(project, pipeline["sha"])
    branch = {"CI_COMMIT_TAG": pipeline["ref"]} if pipeline["tag"] else {"CI_COMMIT_BRANCH": pipeline["ref"]}
    values: dict[str, Any] = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER": "yes",
        "CI_SERVER_FQDN": host,
        "CI_SERVER_URL": url,
        "CI_SERVER_HOST": settings["host"],
        "CI_SERVER_PORT": port,
        "CI_SERVER_PROTOCOL": "https" if settings["https"] else "http",
        "CI_SERVER_SHELL_SSH_HOST": settings["host"],
        "CI_SERVER_SHELL_SSH_PORT": 22,
        "CI_SERVER_NAME": "GitLab",
        "CI_SERVER_VERSION": version(),
        "CI_SERVER_VERSION_MAJOR": major,
        "CI_SERVER_VERSION_MINOR": minor,
        "CI_SERVER_VERSION_PATCH": patch,
        "CI_SERVER_REVISION": revision(),
        "GITLAB_FEATURES": "",
        "CI_PROJECT_ID": project["id"],
        "CI_PROJECT_NAME": project["path"],
        "CI_PROJECT_TITLE": project["name"],
        "CI_PROJECT_DESCRIPTION": project["description"] or "",
        "CI_PROJECT_PATH": project["full_path"],
        "CI_PROJECT_PATH_SLUG": slug(project["full_path"]),
        "CI_PROJECT_NAMESPACE": namespace["full_path"],
        "CI_PROJECT_NAMESPACE_ID": namespace["id"],
        "CI_PROJECT_ROOT_NAMESPACE": namespace["full_path"].partition("/")[0],
        "CI_PROJECT_URL": projects.web_url(app, project),
        "CI_PROJECT_VISIBILITY": projects.VISIBILITY[project["visibility_level"]],
        "CI_PROJECT_REPOSITORY_LANGUAGES": "",
        "CI_DEFAULT_BRANCH": project["default_branch"],
        "CI_CONFIG_PATH": project["ci_config_path"] or ".gitlab-ci.yml",
        "CI_API_V4_URL": f"{url}/api/v4",
        "CI_API_GRAPHQL_URL": f"{url}/api/graphql",
        "CI_TEMPLATE_REGISTRY_HOST": "registry.gitlab.com",
        **_registry(app, project),
        "CI_PIPELINE_SOURCE": pipeline["source"],
        "CI_COMMIT_SHA": pipeline["sha"],
        "CI_COMMIT_SHORT_SHA": pipeline["sha"][:8],
        "CI_COMMIT_BEFORE_SHA": pipeline["before_sha"],
        "CI_COMMIT_REF_NAME": pipeline["ref"],
        "CI_COMMIT_REF_SLUG": slug(pipeline["ref"]),
        **branch,
        "CI_COMMIT_MESSAGE": commit.message,
        "CI_COMMIT_TITLE": commit.title,
        "CI_COMMIT_DESCRIPTION": commit.message[len(commit.title) :].strip(),
        "CI_COMMIT_REF_PROTECTED": str(pipeline["ref"] == project["default_branch"]).lower(),
        "CI_COMMIT_TIMESTAMP": commit.committed_at,
        "CI_COMMIT_AUTHOR": f"{commit.author[0]} <{commit.author[1]}>",
    }
    return [_public(name, value) for name, value in values.items()]


def _registry(app: Application, project: Record) -> dict[str, str]:
    image = projects.image_prefix(app, project)
    if image is None or not project["container_registry_enabled"]:
        return {}
    return {"CI_REGISTRY": projects.registry_host(app), "CI_REGISTRY_IMAGE": image}


def _public(key: str, value: Any) -> Variable:
    return {"key": key, "value": str(value), "public": True, "masked": False}


def _secret(key: str, value: str) -> Variable:
    return {"key": key, "value": value, "public": False, "masked": True}
