"""Variables of a job: predefined ones, those of .gitlab-ci.yml, of earlier jobs, and of the request that started it.

Source: gitlab-org/gitlab lib/gitlab/ci/variables/builder.rb, app/models/ci/build.rb (`persisted_variables`),
doc/ci/variables/predefined_variables.md of 17.10. The runner expands references to other variables.
"""

from collections.abc import Mapping
from typing import Any

from lab_gitlab import projects
from lab_gitlab.application import Application
from lab_gitlab.records import Record

JOB_USER = "gitlab-ci-token"
MASKED = ("CI_JOB_TOKEN", "CI_REGISTRY_PASSWORD")


def for_job(
    app: Application,
    project: Record,
    pipeline: Record,
    job: Record,
    *,
    runner: Record,
    token: str,
    inherited: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return the variables; later ones override earlier ones. `inherited` comes from dotenv reports of other jobs."""
    url = app.settings["gitlab"]["url"]
    image = projects.image_prefix(app, project)
    own = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER_URL": url,
        "CI_API_V4_URL": f"{url}/api/v4",
        "CI_PROJECT_ID": project["id"],
        "CI_PROJECT_NAME": project["path"],
        "CI_PROJECT_PATH": project["full_path"],
        "CI_DEFAULT_BRANCH": project["default_branch"],
        **({"CI_REGISTRY": projects.registry_host(app), "CI_REGISTRY_IMAGE": image} if image else {}),
        "CI_REGISTRY_USER": JOB_USER,
        "CI_REGISTRY_PASSWORD": token,
        "CI_PIPELINE_ID": pipeline["id"],
        "CI_PIPELINE_SOURCE": pipeline["source"],
        "CI_COMMIT_SHA": pipeline["sha"],
        "CI_COMMIT_BRANCH": pipeline["ref"],
        "CI_COMMIT_REF_NAME": pipeline["ref"],
        "CI_JOB_ID": job["id"],
        "CI_JOB_NAME": job["name"],
        "CI_JOB_STAGE": job["stage"],
        "CI_JOB_TOKEN": token,
        "CI_REPOSITORY_URL": repository_url(app, project, token),
        "CI_RUNNER_ID": runner["id"],
        "CI_RUNNER_DESCRIPTION": runner["description"] or "",
    }
    given = {variable["key"]: variable["value"] for variable in pipeline["variables"]}
    return [
        *(_variable(name, value, public=name not in MASKED, masked=name in MASKED) for name, value in own.items()),
        *(_variable(name, value) for name, value in job["options"]["variables"].items()),
        *(_variable(name, value, public=False) for name, value in [*inherited.items(), *given.items()]),
    ]


def repository_url(app: Application, project: Record, token: str) -> str:
    scheme, _, rest = f"{projects.web_url(app, project)}.git".partition("://")
    return f"{scheme}://{JOB_USER}:{token}@{rest}"


def _variable(key: str, value: Any, *, public: bool = True, masked: bool = False) -> dict[str, Any]:
    return {"key": key, "value": str(value), "public": public, "masked": masked}
