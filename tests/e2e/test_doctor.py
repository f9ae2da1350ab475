"""Faults injected into a healthy stack: the doctor reports the check that fails, and its remedy repairs the stack."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import doctor
from configuration import checks
from lab import stack
from lab.workspace import STATE
from programs.acceptance_checks.server_checks import HEALTH_CHECK_MAX_AGE
from tests.e2e import clock, full_volume
from tests.e2e.operations import (
    client,
    eventually,
    instance_id,
    lab,
    must,
    on,
    repair,
    run_product,
    setting,
    target_health,
    up,
)

pytestmark = pytest.mark.long

EXAMINED = STATE / "examined.json"
"""The results, for users; no program reads them."""

LONGEST = doctor.TIME_LIMIT + 5.0
"""Seconds that the doctor may take for any fault, including the start and end of Python."""

CONSOLE_DELAY = "/run/lab/console-delay"
"""File on the server's machine with the additional seconds that the played console takes."""


@dataclass(frozen=True)
class Examined:
    """The doctor's report, and its duration in seconds."""

    status: int
    report: dict[str, Any]
    seconds: float

    @property
    def broken(self) -> str | None:
        return self.report["broken"] and str(self.report["broken"]["check"])

    @property
    def detail(self) -> str:
        return next((str(check["detail"]) for check in self.report["checks"] if check["state"] == "broken"), "")


def examine(*options: str) -> Examined:
    """Run the doctor with nothing but the stack's outputs."""
    outputs = lab("outputs", "--json", "--show-secrets")
    assert outputs.status == 0, outputs.output
    started = time.monotonic()
    done = run_product(outputs.output, "doctor.py", "--json", *options, limit=LONGEST + 10)
    seconds = time.monotonic() - started
    assert stack.PRIVATE_KEY.read_text().splitlines()[-2] not in outputs.output + done.stdout + done.stderr
    return Examined(done.returncode, json.loads(done.stdout), seconds)


@pytest.fixture(autouse=True)
def well(outputs) -> Iterator[None]:
    """Every check passes before the test, and again when the fault is repaired."""
    yield
    after = examine()
    assert after.status == 0, after.report


@dataclass(frozen=True)
class Fault:
    """A fault, the check that fails with it, the detail that the doctor reports, and the repair."""

    what: str
    check: str
    sees: str
    inject: Callable[[], object]
    repair: Callable[[], object]


def close(why: str) -> None:
    """Remove the rules of a flow, at both ends."""
    ec2 = client("ec2")
    known = ec2.describe_security_group_rules()["SecurityGroupRules"]
    rules = [rule for rule in known if rule.get("Description", "").startswith(why)]
    assert len(rules) == 2, rules
    for rule in rules:
        revoke = ec2.revoke_security_group_egress if rule["IsEgress"] else ec2.revoke_security_group_ingress
        revoke(GroupId=rule["GroupId"], SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])


def close_balancer_to_server() -> None:
    close("web requests and health checks")
    eventually(lambda: target_health(80) == "unhealthy")
    # The lab checks more often than AWS, where the last check is old by the time a target is unhealthy.
    time.sleep(HEALTH_CHECK_MAX_AGE)


def close_runner_to_registry() -> None:
    close("images of jobs")
    registry = stack.outputs()["registryHost"]
    eventually(lambda: on("runner", f"curl -s -m 3 -o /dev/null https://{registry}/v2/").status != 0)


def pause_runner() -> None:
    must("server", "gitlab-rails runner -", stdin="Ci::Runner.all.each { |runner| runner.update!(active: false) }\n")


def resume_runner() -> None:
    """Resume it as the user does: the step that created the runner does not, so the checks after it still fail."""
    repeated = up("--replace", "**::server-prepare-gitlab")
    assert repeated.status != 0
    assert "is paused in GitLab" in repeated.output
    assert must("server", "gitlab-rails runner -", stdin="puts Ci::Runner.paused.count\n") != "0"
    must("server", "gitlab-rails runner -", stdin="Ci::Runner.all.each { |runner| runner.update!(active: true) }\n")
    repair()


def revoke_runner_token() -> None:
    token = must("runner", r"sed -n 's/^ *token = \"\(.*\)\"/\1/p' /etc/gitlab-runner/config.toml")
    form = f'form = "token={token}"\n'
    must("runner", f"curl -fsS -K - -X DELETE {stack.outputs()['externalUrl']}/api/v4/runners", stdin=form)


def trust_another_key() -> None:
    certificate = "/etc/docker/registry/gitlab-registry.crt"
    must(
        "registry",
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=another -days 2"
        f" -out {certificate} && chown 1000:1000 {certificate} && docker restart registry",
    )
    eventually(registry_answers)


def sign_with_another_key() -> None:
    must("server", "openssl genrsa 2048 >/var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key")


def trust_another_issuer() -> None:
    must("registry", "sed -i 's/issuer: .*/issuer: another-issuer/' /etc/docker/registry/config.yml")
    must("registry", "docker restart registry")
    eventually(registry_answers)


def registry_answers() -> bool:
    return target_health(5000) == "healthy" and on("registry", "curl -fsS http://127.0.0.1:5000/").status == 0


def enlarge_volume() -> None:
    stack.configure("registryDataVolumeSize", "14")
    repair()
    full_volume.empty()


def misdirect_name() -> None:
    """Change the domain's record outside of Pulumi."""
    address, domain = "198.51.100.99", setting("domain")
    record = {"Name": domain, "Type": "A", "TTL": 300, "ResourceRecords": [{"Value": address}]}
    change = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    client("route53").change_resource_record_sets(HostedZoneId=setting("hostedZoneId"), ChangeBatch=change)
    eventually(lambda: address in on("runner", f"getent ahostsv4 {domain}").output)


def terminate_server() -> None:
    client("ec2").terminate_instances(InstanceIds=[instance_id("server")])
    eventually(lambda: on("server", "true").status != 0)


def replace(step: str) -> Callable[[], None]:
    """The remedy `pulumi up --replace '**::STEP'`."""

    def advised() -> None:
        done = up("--replace", f"**::{step}")
        assert done.status == 0, done.output

    return advised


def on_server(command: str) -> Callable[[], object]:
    return lambda: must("server", command)


def on_runner(command: str) -> Callable[[], object]:
    return lambda: must("runner", command)


def restart_registry() -> None:
    must("registry", "docker restart registry")
    eventually(registry_answers)


FAULTS = (
    Fault(
        "flow balancer to server closed",
        "target",
        "last health check arrived|contains no health check",
        close_balancer_to_server,
        repair,
    ),
    Fault(
        "flow runner to registry closed", "registry", "no response within|timed out", close_runner_to_registry, repair
    ),
    Fault(
        "nginx stopped",
        "nginx",
        "Connection refused",
        on_server("gitlab-ctl stop nginx"),
        on_server("gitlab-ctl restart nginx"),
    ),
    Fault(
        "readiness 503",
        "readiness",
        "readiness endpoint returned 503 .*Redis",
        on_server("gitlab-ctl stop redis"),
        on_server("gitlab-ctl start"),
    ),
    Fault(
        "runner service stopped",
        "process",
        "service gitlab-runner is inactive",
        on_runner("systemctl stop gitlab-runner"),
        on_runner("systemctl start docker gitlab-runner"),
    ),
    Fault("runner paused in GitLab", "online", "paused", pause_runner, resume_runner),
    Fault("runner's token revoked", "online", "verify printed", revoke_runner_token, replace("server-prepare-gitlab")),
    Fault("wrong token key on the registry", "accepted", "Key: ", trust_another_key, replace("registry-run-registry")),
    Fault("wrong token key in GitLab", "accepted", "Key: ", sign_with_another_key, replace("server-configure-gitlab")),
    Fault("registry issuer changed", "accepted", "Issuer: ", trust_another_issuer, replace("registry-run-registry")),
    Fault(
        "registry's clock 120 s off",
        "accepted",
        "Clock: the registry is 1[12]. s behind GitLab",
        lambda: clock.turn("registry", "registry", -120),
        restart_registry,
    ),
    Fault(
        "Docker stopped on the runner",
        "process",
        "service docker is inactive",
        on_runner("systemctl stop docker.socket docker"),
        on_runner("systemctl start docker gitlab-runner"),
    ),
    Fault("data volume full on the registry", "push", "data volume is full", full_volume.fill, enlarge_volume),
    Fault("GitLab machine dead", "target", "does not answer over SSH", terminate_server, repair),
    Fault("DNS name wrong", "name", "resolves to 198.51.100.99", misdirect_name, repair),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_doctor_names_exactly_the_check_that_fails_and_its_advice_heals(fault):
    fault.inject()
    examined = examine()
    started = time.monotonic()
    try:
        assert examined.status == 1, examined.report
        assert examined.broken == fault.check, examined.report
        assert next(check["check"] for check in examined.report["checks"] if check["state"] == "broken") == fault.check
        assert re.search(fault.sees, examined.detail), examined.detail
        assert examined.seconds < LONGEST
    finally:
        fault.repair()
    note(fault, examined, time.monotonic() - started)


def note(fault: Fault, examined: Examined, repaired: float) -> None:
    known = json.loads(EXAMINED.read_text()) if EXAMINED.exists() else {}
    known[fault.what] = {
        "check": examined.broken,
        "detail": examined.detail,
        "remedy": examined.report["broken"]["remedy"],
        "seconds": round(examined.seconds, 1),
        "repaired": round(repaired, 1),
    }
    EXAMINED.write_text(json.dumps(known, indent=1))


def test_a_stack_that_is_well_is_found_so_with_the_pipeline_and_in_twenty_seconds_without():
    found = examine()
    assert (found.status, found.report["verdict"]) == (0, "well")
    assert found.seconds < LONGEST
    quick = examine("--quick")
    assert (quick.status, quick.report["verdict"]) == (0, "well")
    assert quick.seconds <= doctor.QUICK_TIME_LIMIT
    assert [check["check"] for check in quick.report["checks"] if check["state"] == "off"] == list(checks.NEEDS_A_TOKEN)


def test_a34_with_a_console_that_takes_forty_seconds_a_doctor_of_less_than_a_minute_never_says_well():
    must("server", f"mkdir -p /run/lab && echo 40 >{CONSOLE_DELAY} && chmod 644 {CONSOLE_DELAY}")
    try:
        # Enough for the console, and not for the pipeline that follows.
        full, quick, hasty = examine(), examine("--quick"), examine("--within", "45")
    finally:
        must("server", f"rm {CONSOLE_DELAY}")
    assert (full.status, full.report["verdict"]) == (0, "well"), full.report
    assert 40 < full.seconds <= doctor.TIME_LIMIT
    assert (quick.status, quick.report["verdict"]) == (0, "well"), quick.report
    assert quick.seconds <= doctor.QUICK_TIME_LIMIT
    assert (hasty.status, hasty.report["verdict"]) == (2, "could not look"), hasty.report


def test_while_a_step_of_an_up_is_at_work_nothing_is_said_about_its_machine():
    must("runner", "systemd-run --unit busy flock /run/gitlab-stack.lock sleep 600")
    try:
        found = examine()
    finally:
        must("runner", "systemctl stop busy")
    assert found.status == 2
    assert found.broken is None
    assert any("a step of pulumi up is running" in check["detail"] for check in found.report["checks"])
