"""Checks with a token: the registry's trust settings, and a pipeline from its start to the pulled image."""

import base64
import fcntl
import fnmatch
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from configuration import acceptance_project, checks, report
from configuration.flows import Place
from configuration.registry_config import render_registry_config
from configuration.remote_step import PROGRAMS, script
from programs.acceptance_checks import (
    acceptance_token,
    clients,
    pipeline_checks,
    registry_facts,
)
from programs.acceptance_checks.table import CHECKS
from tests.check_runs import ENDPOINTS, Output, PlayedGitLab, check_from, run_group

TOKEN = "glpat-aSecretOfTheAcceptance"


CLAIMS = {"kid": "AAAA:BBBB", "iss": "omnibus-gitlab-issuer", "aud": "container_registry", "iat": 1000.0}
FACTS = {"issuer": "omnibus-gitlab-issuer", "service": "container_registry", "keys": ["AAAA:BBBB"]}


@pytest.mark.parametrize(
    ("claims", "clock", "why"),
    [
        ({}, 1000.0, None),
        ({}, 1059.0, None),
        ({"kid": "CCCC"}, 1000.0, "Key: GitLab signs with CCCC, the registry trusts AAAA:BBBB."),
        ({"iss": "another"}, 1000.0, "Issuer: the token is from another, the registry trusts omnibus-gitlab-issuer."),
        ({"aud": "other"}, 1000.0, "Audience: the token is for other, the registry is container_registry."),
        ({}, 880.0, "Clock: the registry is 120 s behind GitLab."),
        ({}, 1120.0, "Clock: the registry is 120 s ahead of GitLab."),
    ],
)
def test_key_issuer_audience_and_clock_of_a_token_are_told_apart(claims, clock, why):
    assert pipeline_checks.differences(CLAIMS | claims, FACTS, clock) == ([why] if why else [])


def test_the_registrys_machine_tells_whom_it_trusts(tmp_path, monkeypatch):
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2")
    for name in ("one", "two"):
        subprocess.run(
            [*made, "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"],
            check=True,
            capture_output=True,
        )
    (tmp_path / "config.yml").write_text(render_registry_config(external_url="http://git.example.com", port=5000))
    bundle = (tmp_path / "one.crt").read_text() + (tmp_path / "two.crt").read_text()
    (tmp_path / "gitlab-registry.crt").write_text(bundle)
    monkeypatch.setattr(registry_facts, "REGISTRY_FOLDER", str(tmp_path))
    monkeypatch.setattr(registry_facts, "REGISTRY_DATA", str(tmp_path))
    [facts] = [line["facts"] for line in check_from(Place.REGISTRY).lines if "facts" in line]
    assert (facts["issuer"], facts["service"]) == ("omnibus-gitlab-issuer", "container_registry")
    assert 0 <= facts["used_percent"] <= 100
    # Computes the same ID in shell, as in GitLab's lib/json_web_token/rsa_token.rb.
    by_hand = (
        "openssl pkey -in {} -pubout -outform DER | openssl dgst -sha256 -binary | head -c30 | base32 -w0 "
        "| sed 's/..../&:/g;s/:$//'"
    )
    keys = [
        subprocess.run(
            ["bash", "-c", by_hand.format(tmp_path / f"{name}.key")], check=True, capture_output=True, text=True
        ).stdout
        for name in ("one", "two")
    ]
    assert facts["keys"] == keys


# The pipeline ---------------------------------------------------------------------------------------------------------


def token_of(claims: dict[str, Any]) -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    return f"{part({'kid': claims['kid']})}.{part({k: v for k, v in claims.items() if k != 'kid'})}.c2ln"


PUSHED = "gitlab-stack/acceptance/acceptance:7@sha256:" + "ab" * 32
CLONED = "".join(
    f"section_{mark}\r\x1b[0K\n" for mark in ("start:100:get_sources", "end:102:get_sources", "start:102:step_script")
)
TRACES = {
    "push": f"{CLONED}$ sh push.sh\ncheck job-token ok 0.12\n2026-11-24T13:00:00Z 01O check push ok 0.34 {PUSHED}\n",
    "pull": f"{CLONED}check pull ok 0.56\n",
}
FILES = acceptance_project.files(acceptance_project.DEFAULT_IMAGE)


class PlayedPipeline:
    """Stubs for GitLab's pipelines, for a registry that accepts its tokens, and for the machine's commands."""

    def __init__(self, gitlab: PlayedGitLab, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gitlab = gitlab
        self.runner: dict[str, Any] | None = {"active": True}
        self.jobs = {name: {"status": "success", "queued_duration": 0.78} for name in ("push", "pull")}
        self.traces = dict(TRACES)
        self.commands: list[list[str]] = []
        self.console_answers = True
        monkeypatch.setattr(acceptance_token, "TOKEN_LOCK", str(folder / "lock"))
        self.use = lambda run: monkeypatch.setattr(subprocess, "run", run)
        self.use(self.run)
        monkeypatch.setattr(clients, "fetch", self.registry)
        self.registry_answer = 200
        self.claims = CLAIMS | {"iat": time.time()}
        gitlab.on("GET", r"/jwt/auth\?service=container_registry", lambda _: {"token": token_of(self.claims)})
        for name, content in FILES.items():
            gitlab.on("GET", f"/repository/files/{re.escape(name)}/raw.*", content)
        gitlab.on("POST", "/pipeline", {"id": 7}, status=201)
        gitlab.on(
            "GET",
            "/pipelines/7/jobs.*",
            lambda _: [{"id": place, "name": name} | job for place, (name, job) in enumerate(self.jobs.items())],
        )
        for place, name in enumerate(self.jobs):
            gitlab.on("GET", f"/jobs/{place}/trace", lambda _, name=name: self.traces[name])
        gitlab.on("GET", r"/pipelines\?.*", [{"id": number} for number in (7, 6, 5, 4, 3)])
        gitlab.on("DELETE", r"/pipelines/\d+", "", status=204)
        gitlab.on("GET", r"/registry/repositories\?.*", [{"id": 9}])
        gitlab.on("GET", r"/registry/repositories/9/tags.*", [{"name": name} for name in ("kept", "10", "9", "8", "7")])
        gitlab.on("DELETE", r"/registry/repositories/9/tags/\w+", {}, status=200)
        gitlab.on("POST", "/pipelines/7/cancel", {"id": 7})
        gitlab.on("DELETE", "/api/v4/personal_access_tokens/self", "", status=204)

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(command)
        if command[0] == "gitlab-rails":
            settings = {"admin_mode": True} if command[-1] == '["admin_mode"]' else {}
            result = json.dumps({"token": TOKEN, "runner": self.runner, "settings": settings})
            answer = result if self.console_answers else "it is broken"
            return subprocess.CompletedProcess(command, 0, f"a warning\n{answer}\n".encode(), b"")
        return subprocess.CompletedProcess(command, 0, b"", b"")

    def registry(self, url: str, headers: Any = None) -> tuple[int, Any, bytes]:
        assert headers["Authorization"].startswith("Bearer ")
        return self.registry_answer, {"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}, b""

    def perform(self, go: dict[str, Any] | None = None, **more: Any) -> Output:
        task = report.task(
            ENDPOINTS,
            checks.checks_by_pipeline(),
            patience=0,
            more={"console": "the console's program", "files": FILES, **more},
        )
        return run_group("pipeline", task, *([json.dumps({"facts": FACTS} | go)] if go is not None else []))

    @property
    def revoked(self) -> bool:
        return bool(self.gitlab.received("DELETE", "/api/v4/personal_access_tokens/self"))


@pytest.fixture
def pipeline(gitlab, tmp_path, monkeypatch) -> PlayedPipeline:
    return PlayedPipeline(gitlab, tmp_path, monkeypatch)


def test_a_pipeline_that_is_well_passes_with_the_seconds_of_each_check(pipeline):
    output = pipeline.perform({})
    assert output.status == 0, output.stderr
    assert output.well == ["accepted", "taken", "clone", "job-token", "push", "pull"]
    seconds = {check: output[check]["seconds"] for check in output.well[1:]}
    assert seconds == {"taken": 0.78, "clone": 2.0, "job-token": 0.12, "push": 0.34, "pull": 0.56}
    assert output["push"]["detail"] == PUSHED
    printed = "\n".join(map(json.dumps, output.lines))
    assert report.pushed_image(printed).name == "gitlab-stack/acceptance/acceptance:7"


def test_settings_of_gitlab_are_reported_to_whoever_asks_for_them(pipeline):
    facts = [line["facts"] for line in pipeline.perform({}, settings=["admin_mode"]).lines if "facts" in line]
    assert facts == [{"settings": {"admin_mode": True}}]
    assert not [line for line in pipeline.perform({}).lines if "facts" in line]


def test_the_last_three_pipelines_and_images_are_kept_and_what_others_pushed_with_them(pipeline):
    pipeline.perform({})
    deleted = [path for method, path, _ in pipeline.gitlab.asked if method == "DELETE"]
    assert deleted == [
        *("/pipelines/4", "/pipelines/3", "/registry/repositories/9/tags/7"),
        "/api/v4/personal_access_tokens/self",
    ]


def test_files_are_committed_only_where_they_differ(pipeline):
    pipeline.perform({})
    assert not pipeline.gitlab.received("POST", "/repository/commits")
    pipeline.gitlab.on("GET", "/repository/files/push.sh/raw.*", "an older one")
    pipeline.gitlab.on("GET", "/repository/files/pull.sh/raw.*", {"message": "404 File Not Found"}, status=404)
    pipeline.gitlab.on("POST", "/repository/commits", {"id": "abc"}, status=201)
    pipeline.perform({})
    [commit] = pipeline.gitlab.received("POST", "/repository/commits")
    assert [(action["action"], action["file_path"]) for action in commit["actions"]] == [
        ("create", "pull.sh"),
        ("update", "push.sh"),
    ]


@pytest.mark.parametrize(
    "ends",
    ["passes", "fails", "no start message", "terminated", "GitLab gone"],
)
def test_the_token_is_revoked_however_it_ends_and_nobody_reads_it(pipeline, monkeypatch, ends):
    if ends == "fails":
        pipeline.traces["push"] = f"{CLONED}check job-token broken the registry answers 401\n"
        pipeline.jobs["push"]["status"] = "failed"
    if ends == "terminated":
        monkeypatch.setitem(CHECKS["pipeline"], "accepted", lambda _: os.kill(os.getpid(), 15))
    if ends == "GitLab gone":
        pipeline.gitlab.on("DELETE", "/api/v4/personal_access_tokens/self", "no", status=502)
    output = pipeline.perform(None if ends == "no start message" else {})
    assert pipeline.revoked
    timers = [command for command in pipeline.commands if "gitlab-stack-revoke" in " ".join(command)]
    assert timers[1][0] == "systemd-run"
    assert ["revoke", ENDPOINTS.project] == timers[1][-2:]
    # If the token could not be revoked, the timer still revokes it.
    assert (len(timers) == 3) == (ends != "GitLab gone")
    assert TOKEN not in json.dumps(output.lines) + output.stderr
    assert not [command for command in pipeline.commands if TOKEN in " ".join(command)]


def test_a_revocation_under_way_or_planned_by_a_run_that_was_killed_is_ended_and_no_error(pipeline):
    loaded = ["gitlab-stack-revoke-77.timer", "gitlab-stack-revoke-76.service"]
    play = pipeline.run

    def systemd(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if command[:2] == ["systemctl", "stop"]:
            loaded[:] = [unit for unit in loaded if not fnmatch.fnmatch(unit, command[2])]
        if command[0] == "systemd-run":
            assert not [unit for unit in loaded if unit.startswith("gitlab-stack-revoke")], "two at once"
            assert command[command.index("--unit") + 1] not in ("gitlab-stack-revoke-77", "gitlab-stack-revoke-76")
        return play(command, **options)

    pipeline.use(systemd)
    assert pipeline.perform({}).status == 0


def test_a_machine_that_plans_no_revocation_could_not_be_checked_and_gets_no_token(pipeline):
    play = pipeline.run

    def systemd(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if command[0] == "systemd-run":
            raise subprocess.CalledProcessError(1, command)
        return play(command, **options)

    pipeline.use(systemd)
    output = pipeline.perform({})
    assert output.status == 2
    assert output.stderr.startswith("Could not check: CalledProcessError: ")
    assert not [command for command in pipeline.commands if command[0] == "gitlab-rails"]


def test_nothing_is_started_before_it_is_told_to(pipeline):
    output = pipeline.perform(None)
    assert output.status == 2
    assert output.lines == [{"error": "standard input ended before the start message"}]
    assert not pipeline.gitlab.received("POST", "/pipeline")


def test_a_token_is_checked_without_a_pipeline_when_that_has_no_prospect(pipeline):
    output = pipeline.perform({"pipeline": False})
    assert output.well == ["accepted"]
    assert not pipeline.gitlab.received("POST", "/pipeline")


def test_a_console_without_an_answer_is_said_to_be_one(pipeline):
    pipeline.console_answers = False
    output = pipeline.perform({})
    assert output.status == 2
    assert "console did not issue a token" in output.stderr


@pytest.mark.parametrize(
    ("check", "change", "what"),
    [
        ("accepted", lambda p: p.claims.update(kid="CCCC"), "Key: GitLab signs with CCCC"),
        ("accepted", lambda p: setattr(p, "registry_answer", 401), "returned 401. Key, issuer"),
        ("accepted", lambda p: p.claims.update(iat=time.time() + 120), "Clock: the registry is 1[12]. s behind"),
        ("online", lambda p: setattr(p, "runner", None), "GitLab has no runner named the-runner"),
        ("online", lambda p: p.runner.update(active=False), "The runner the-runner is paused"),
        ("taken", lambda p: p.gitlab.on("POST", "/pipeline", {"message": "no"}, status=400), "returned 400"),
        ("taken", lambda p: p.jobs["push"].update(status="pending"), "The job is pending"),
        (
            "taken",
            lambda p: (
                p.jobs["push"].update(status="failed", failure_reason="runner_system_failure"),
                p.traces.update(push="ERROR: Job failed (system failure): no such image\n"),
            ),
            "runner_system_failure.*no such image",
        ),
        (
            "clone",
            lambda p: (
                p.jobs["push"].update(status="failed"),
                p.traces.update(push="section_start:1:get_sources\r\nfatal: unable to access\n"),
            ),
            "fatal: unable to access",
        ),
        ("job-token", lambda p: p.traces.update(push=f"{CLONED}check job-token broken returned 403\n"), "returned 403"),
        ("push", lambda p: p.traces.update(push=f"{CLONED}check job-token ok 0.1\ncheck push broken 500\n"), "^500$"),
        ("push", lambda p: p.traces.update(push=f"{CLONED}check job-token ok 0.1\nsh: curl: not found\n"), "not found"),
        ("pull", lambda p: (p.jobs["pull"].update(status="skipped"), p.traces.update(pull="")), "is skipped"),
    ],
)
def test_what_is_broken_about_a_pipeline_is_named(pipeline, check, change, what):
    change(pipeline)
    output = pipeline.perform({})
    assert output.status == 1
    assert [line["check"] for line in output.lines if line.get("state") == "broken"] == [check]
    assert re.search(what, output[check]["detail"])
    started = pipeline.gitlab.received("POST", "/pipeline") and check not in ("accepted", "online")
    assert len(pipeline.gitlab.received("POST", "/pipelines/7/cancel")) == (1 if started and "400" not in what else 0)


def test_a_push_that_fails_on_a_full_volume_says_so(pipeline):
    pipeline.traces["push"] = f"{CLONED}check job-token ok 0.1\ncheck push broken The registry returned 500.\n"
    output = pipeline.perform({"facts": FACTS | {"used_percent": 100}})
    assert output["push"]["detail"].endswith("The registry's data volume is full (100%).")


def test_without_time_left_a_check_is_not_made_and_never_passes(pipeline):
    pipeline.jobs["push"]["status"] = "pending"
    task = report.task(ENDPOINTS, checks.checks_by_pipeline(), more={"console": "", "files": FILES, "within": 0.3})
    output = run_group("pipeline", task, json.dumps({"facts": FACTS}))
    assert output.status == 2
    assert output.lines[-1] == {"error": "no time left for: job taken"}
    assert pipeline.revoked


def test_the_token_outlives_the_longest_run_of_the_checks_that_need_it():
    longest = acceptance_token.CONSOLE_LIMIT + sum(check.limit for check in checks.checks_by_pipeline())
    assert longest < int(acceptance_token.TOKEN_LIFE.replace("min", "")) * 60


def test_two_do_not_run_the_pipeline_at_once(pipeline, tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        output = pipeline.perform({})
    assert output.status == 2
    assert "another run of the acceptance pipeline" in output.stderr
    assert pipeline.commands == []


def test_the_console_makes_a_token_of_the_project_alone_that_ends_and_removes_the_one_before():
    text = script("acceptance_token.rb")
    steps = ("ResourceAccessTokens::RevokeService", "DeleteUserWorker", "ResourceAccessTokens::CreateService")
    assert sorted(steps, key=text.index) == list(steps)
    assert "expires_at: Date.tomorrow.iso8601" in text
    assert "seeded-root-password" not in text + "".join(
        path.read_text() for path in (PROGRAMS / "acceptance_checks").glob("*.py")
    )
