"""CI runs only make targets and pinned actions, and has no credentials where a third party's code runs.

Schemas and linters check the files themselves (`make lint`).
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import pins

ROOT = Path(__file__).resolve().parent.parent
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FILES = sorted((ROOT / ".github/workflows").glob("*.yaml"))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
GITLAB = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{file} {name}", job) for file, flow in WORKFLOWS.items() for name, job in flow["jobs"].items()]


def commands() -> list[str]:
    """Every command of a step, in both CI systems, except those that prepare an image, or show or return a result."""
    lines = [line for _, job in jobs() for step in job["steps"] for line in step.get("run", "").splitlines()]
    lines += [line for job in GITLAB.values() if isinstance(job, dict) for line in job.get("script", [])]
    return [line for line in lines if not re.match(r"cat \w+\.(md|json)|exit \"\$\{status:-0\}\"", line)]


def trigger(workflow: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workflow[True]  # `on` is a boolean in YAML 1.1
    return found


def test_there_are_four_workflows_and_gitlab_has_their_jobs():
    assert set(WORKFLOWS) == {"check", "preview", "drift", "drill"}
    assert {"test", "contract", "preview-diff", "aws-preview", "aws-drift", "aws-drill"} <= set(GITLAB)


def test_every_step_is_a_make_target():
    for line in commands():
        target = re.match(r"(?:sudo )?make (?:--silent )?([\w-]+)", line)
        assert target, line
        assert target[1] in TARGETS, line


def test_gitlabs_own_recipes_judge_every_change_in_both_systems():
    steps = [step.get("run") for step in WORKFLOWS["check"]["jobs"]["contract"]["steps"]]
    assert steps[-2:] == ["make omnibus", "sudo make contract OMNIBUS='.omnibus/*'"]
    assert GITLAB["contract"]["script"] == ["make omnibus", "make contract OMNIBUS='.omnibus/*'"]
    assert GITLAB["contract"]["rules"] == GITLAB["test"]["rules"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_by_hash_with_the_version_beside_it(path):
    uses = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert uses
    for line in uses:
        assert re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_the_check_of_a_fork_has_neither_secret_nor_right():
    check = WORKFLOWS["check"]
    assert set(trigger(check)) == {"pull_request", "push"}
    assert check["permissions"] == {"contents": "read"}
    assert not [name for name, job in check["jobs"].items() if "permissions" in job or "environment" in job]
    text = (ROOT / ".github/workflows/check.yaml").read_text()
    assert not re.search(r"secrets\.|vars\.|id-token|aws-", text)


def test_nothing_runs_a_forks_code_in_the_name_of_this_repository():
    for workflow in WORKFLOWS.values():
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(trigger(workflow))


def test_the_role_is_taken_for_branches_of_the_repository_itself_and_at_night():
    for name, job in jobs():
        takes_role = any("configure-aws-credentials" in step.get("uses", "") for step in job["steps"])
        assert takes_role == (job.get("permissions", {}).get("id-token") == "write"), name
        if takes_role:
            workflow = WORKFLOWS[name.split()[0]]
            assert job["if"].startswith(SAME_REPOSITORY) or set(trigger(workflow)) == {"schedule", "workflow_dispatch"}


def test_gitlab_takes_the_role_for_branches_of_the_project_itself_and_on_schedules():
    for name in ("aws-preview", "aws-drift", "aws-drill"):
        [rule] = GITLAB[name]["rules"]
        own = "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID" in rule["if"]
        assert own or '$CI_PIPELINE_SOURCE == "schedule"' in rule["if"]
    for name in ("test", "contract", "preview-diff"):
        assert not {"id_tokens", "extends"} & set(GITLAB[name])


def roles_of_github() -> dict[str, str]:
    """The variable that contains the role, by the workflow that assumes it."""
    return {
        name.split()[0]: step["with"]["role-to-assume"]
        for name, job in jobs()
        for step in job["steps"]
        if "configure-aws-credentials" in step.get("uses", "")
    }


def test_code_that_is_not_merged_and_the_nightly_run_have_different_roles():
    assert roles_of_github() == {
        "preview": "${{ vars.AWS_PREVIEW_ROLE }}",
        "drift": "${{ vars.AWS_DRIFT_ROLE }}",
        "drill": "${{ vars.AWS_DRILL_ROLE }}",
    }
    assert GITLAB["aws-preview"]["variables"]["AWS_ROLE_ARN"] == "$AWS_PREVIEW_ROLE"
    assert GITLAB["aws-drift"]["variables"]["AWS_ROLE_ARN"] == "$AWS_DRIFT_ROLE"
    assert "AWS_ROLE_ARN" not in GITLAB[".aws"]["variables"]


def test_a_drill_has_as_long_to_come_up_and_be_destroyed_as_its_checks_may_take_and_more():
    [job] = WORKFLOWS["drill"]["jobs"].values()
    minutes = job["timeout-minutes"]
    [session] = [
        step["with"]["role-duration-seconds"] for step in job["steps"] if "role-to-assume" in step.get("with", {})
    ]
    assert GITLAB["aws-drill"]["timeout"] == f"{minutes // 60} hours"
    assert session == minutes * 60
    assert f"--max-session-duration {session} " in (ROOT / "docs/pull-requests.md").read_text()
    limits = {int(found) for line in commands() for found in re.findall(r"CHECK_LIMIT=(\d+)", line)}
    assert len(limits) == 1
    assert limits.pop() * 2 < minutes


def test_a_job_is_skipped_where_its_role_is_not_set():
    for name, role in (("preview", "AWS_PREVIEW_ROLE"), ("drift", "AWS_DRIFT_ROLE"), ("drill", "AWS_DRILL_ROLE")):
        [job] = WORKFLOWS[name]["jobs"].values()
        assert f"vars.{role} != ''" in job["if"]
        [rule] = GITLAB[f"aws-{name}"]["rules"]
        assert rule["if"].endswith(f"&& ${role}")


def test_the_nightly_run_waits_for_no_reviewer_and_shares_no_environment_with_the_preview():
    """A job waits for the protection rules of its environment (GitHub, Deployments and environments)."""
    [drift], [preview] = WORKFLOWS["drift"]["jobs"].values(), WORKFLOWS["preview"]["jobs"].values()
    assert preview["environment"] == "preview"
    [drill] = WORKFLOWS["drill"]["jobs"].values()
    for job in (drift, drill):
        assert "environment" not in job, "its role trusts the branch; a job with an environment has that as its subject"
    named = {name: job["environment"]["name"] for name, job in GITLAB.items() if "environment" in job}
    assert named == {"aws-preview": "preview", "aws-drift": "drift", "aws-drill": "drill"}


def test_the_token_that_comments_is_asked_for_in_its_environment_only():
    """Other jobs do not get an environment's variable (GitLab, Limit the environment scope of a CI/CD variable)."""
    jobs_of_gitlab = {name: job for name, job in GITLAB.items() if isinstance(job, dict)}
    comments = [name for name, job in jobs_of_gitlab.items() if "make comment IN=preview.md" in job.get("script", [])]
    assert comments == ["aws-preview"]
    page = (ROOT / "docs/pull-requests.md").read_text()
    assert re.search(r"`COMMENT_TOKEN`, [^.]*\*environment scope\* `preview`", page)


def test_a_preview_that_failed_is_commented_with_its_commit_and_fails_the_job(tmp_path):
    [job] = WORKFLOWS["preview"]["jobs"].values()
    preview, comment = job["steps"][-2:]
    assert preview["env"]["COMMIT"] == "${{ github.event.pull_request.head.sha }}"
    assert (comment["run"], comment["if"]) == (
        "make comment IN=preview.md",
        "${{ !cancelled() && hashFiles('preview.md') != '' }}",
    )
    assert GITLAB["aws-preview"]["variables"]["COMMIT"] == "$CI_COMMIT_SHA"
    # The runner ends a job at the first line that fails.
    make = 'make() { echo "$1" >>calls; [ "$1" = comment ] || return "$fails"; }'
    script = "\n".join(["set -e", make, *GITLAB["aws-preview"]["script"]])
    for status in (0, 2):
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env={"fails": str(status)}, check=False)
        assert done.returncode == status
        assert (tmp_path / "calls").read_text().split() == ["aws-preview", "comment"]
        (tmp_path / "calls").unlink()


def test_the_stacks_own_gitlab_is_not_offered_as_the_ci_of_this_repository():
    page = (ROOT / "docs/pull-requests.md").read_text()
    assert "**Do not use the GitLab that this program runs.**" in page
    assert "can run it" not in page


def test_an_update_bots_branch_gets_no_role():
    """The branch is in this repository, but contains a dependency that no one has reviewed yet."""
    condition = WORKFLOWS["preview"]["jobs"]["preview"]["if"]
    assert "github.event.pull_request.user.type != 'Bot'" in condition
    [rule] = GITLAB["aws-preview"]["rules"]
    for bot in ("renovate", "dependabot"):
        assert f"&& !startsWith(github.head_ref, '{bot}/')" in condition
        assert bot in rule["if"].partition("$CI_MERGE_REQUEST_SOURCE_BRANCH_NAME !~ ")[2]


def test_what_a_preview_shows_of_the_networks_is_for_developers_alone():
    with_artifacts = {name: job["artifacts"] for name, job in GITLAB.items() if "artifacts" in job}
    assert set(with_artifacts) == {"preview-diff", "aws-preview", "aws-drift", "aws-drill"}
    assert {each.get("access") for each in with_artifacts.values()} == {"developer"}


def test_the_real_previews_use_the_engine_that_the_lab_is_tested_with():
    version = re.search(r"^pulumi==(.*?) ", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert version
    for name in ("preview", "drift", "drill"):
        [job] = WORKFLOWS[name]["jobs"].values()
        assert [step["with"]["pulumi-version"] for step in job["steps"] if "pulumi/" in step.get("uses", "")] == [
            version[1]
        ]
    assert "make pulumi-cli" in GITLAB[".aws"]["before_script"], "the engine must have the version in tools/pins.yaml"


def images_of_gitlab() -> list[str]:
    """Every image that a job or one of its services runs in."""
    found = []
    for job in GITLAB.values():
        if isinstance(job, dict):
            found += [job["image"]] if "image" in job else []
            found += job.get("services", [])
    return [image if isinstance(image, str) else image["name"] for image in found]


def test_the_images_of_ci_are_named_by_the_digests_that_are_pinned():
    pinned = {
        f"{pin.name.removeprefix('docker.io/library/')}@{pin.value}" for pin in pins.read() if pin.kind == "image"
    }
    assert images_of_gitlab()
    assert set(images_of_gitlab()) <= pinned
    for name, job in jobs():
        assert not {"container", "services"} & set(job), f"{name}: pin this image by its digest"


def test_nothing_unpinned_is_installed_where_a_job_has_the_role():
    installs = re.compile(
        r"\b(apt(-get)?|apk|dnf|yum|curl|wget|npm|go install)\b|\bpip3? install\b|pulumi (plugin )?install"
    )
    prepared = [line for job in GITLAB.values() if isinstance(job, dict) for line in job.get("before_script", [])]
    for line in [*prepared, *commands()]:
        assert not installs.search(line), line


def test_the_plugins_are_there_before_the_real_stack_is_asked():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("aws-preview", "aws-drift", "restore", "drill"):
        assert re.search(rf"^{target}:[^#\n]*[ ,]plugins\)?  ##", makefile, re.MULTILINE)
    assert "aws-preview aws-drift restore drill: export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION := true" in makefile


def test_what_the_engine_is_built_from_is_cached():
    [cache] = [step["with"] for _, job in jobs() for step in job["steps"] if "cache@" in step.get("uses", "")]
    assert ".lab/cache" in cache["path"]
    assert ".lab/cache" in GITLAB["preview-diff"]["cache"]["paths"]
