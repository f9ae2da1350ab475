"""TLS: what clients verify, what a scan finds, certificates that clients refuse, the three ways to a certificate."""

import contextlib
import json
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ssl import TLSVersion
from typing import Any

import pytest

from configuration.flows import Place
from lab import authority, stack
from lab.cloud import dns, shown_certificates
from lab.workspace import LOGS
from tests.e2e import https, kept, people
from tests.e2e.operations import (
    ROLES,
    Operation,
    certificates,
    client,
    configure,
    eventually,
    lab,
    must,
    on,
    preview,
    repair,
    setting,
    starting_up,
    up,
)
from tests.e2e.programs import IMPATIENT, Edits, changed_program
from tests.e2e.test_doctor import examine
from tests.e2e.test_reachability import TRIED, job_says
from tests.e2e.test_traps import refused, refused_once_it_is_real

PEM = ("certificatePem", "certificateKeyPem", "certificateAuthority")
ELSEWHERE = "git.example.net"
"""A name in no zone of Route 53."""

RECORD = re.compile(r"([\w.-]+\.example\.net)\.?\s+(A|CNAME)\s+([\w.-]*\w)")
"""A DNS record as the program shows it: name, type and value."""


ASK_IN_JOB = """
curl -fsS --cacert "$CI_SERVER_TLS_CA_FILE" --output /dev/null "$CI_SERVER_URL/users/sign_in"
echo "$CI_SERVER_URL verified"
"""


def ports(outputs: dict[str, Any]) -> tuple[int, int]:
    """The ports with TLS."""
    return 443, int(outputs["registryHost"].rpartition(":")[2])


def fingerprints(outputs: dict[str, Any]) -> list[str]:
    """The fingerprints of the certificates that the load balancer shows, of each port."""
    address, name = https.address(outputs), https.name(outputs)
    return [https.fingerprint((address, port), name) for port in ports(outputs)]


@contextlib.contextmanager
def shown(outputs: dict[str, Any], **other: Any) -> Iterator[None]:
    """Let the load balancer show another certificate for a while."""
    before = fingerprints(outputs)
    shown_certificates.reissue(**other)
    try:
        eventually(lambda: not set(before) & set(fingerprints(outputs)), interval=0.3)
        yield
    finally:
        shown_certificates.restore()
        eventually(lambda: fingerprints(outputs) == before, interval=0.3)


def renew(outputs: dict[str, Any]) -> None:
    """Renew the stack's certificate as ACM does: under the same ARN, and without a call of the stack's."""
    before = fingerprints(outputs)
    shown_certificates.reissue(renewed=True)
    eventually(lambda: not set(before) & set(fingerprints(outputs)), interval=0.3)


def listeners() -> list[dict[str, Any]]:
    """The listeners of the load balancer, as AWS describes them."""
    elb = client("elbv2")
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    return list(elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"])


def clone(outputs: dict[str, Any], folder: Path, certificate: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Clone the acceptance's project on this host, by name, over HTTPS."""
    address = f"https://{people.NAME}:{people.PASSWORD}@{https.name(outputs)}/{kept.PROJECT}.git"
    command = ["git", *https.git_options(outputs), "clone", "--quiet", address, str(folder)]
    return subprocess.run(command, env=https.git_environment(certificate), capture_output=True, text=True, check=False)


def docker_login() -> str:
    """The output of a login with a wrong password, on the runner's machine."""
    host = stack.outputs()["registryHost"]
    return on("runner", f"docker login --username unknown --password-stdin {host}", stdin="wrong\n").output


def test_clients_verify_the_certificate_and_refuse_to_connect_without_its_authority(outputs, tmp_path):
    people.make()
    options = https.curl_options(outputs)
    page = f"{outputs['externalUrl']}/users/sign_in"
    ask = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", page]
    verified = subprocess.run([*ask, *options], capture_output=True, text=True, check=False)
    assert verified.stdout == "200", verified.stderr
    unknown = subprocess.run(
        [*ask, *options, "--cacert", str(authority.OUTSIDER.certificate())], capture_output=True, text=True, check=False
    )
    assert unknown.returncode == 60, unknown.stderr

    done = clone(outputs, tmp_path / "acceptance")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "acceptance/.gitlab-ci.yml").exists()
    other = clone(outputs, tmp_path / "other", authority.OUTSIDER.certificate())
    assert other.returncode != 0
    assert "certificate" in other.stderr


def test_docker_the_runner_and_jobs_verify_the_certificate(outputs):
    kept.pull(kept.push("over-tls"))
    assert re.search("is valid|is alive", must("runner", "gitlab-runner verify"))
    assert f"\n{outputs['externalUrl']} verified\n" in job_says(outputs, ASK_IN_JOB)


def test_no_machine_is_configured_to_accept_a_connection_without_verification(outputs):
    folders = "/etc/docker /etc/gitlab-runner /etc/gitlab"
    for role in ROLES:
        assert on(role, f"grep -rils insecure {folders}").output == ""
    assert must("runner", f"grep -rils log-driver {folders} || true"), "the search does not work"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_outside_finds_only_tls_1_2_and_1_3_with_the_right_name_and_git_over_ssh(outputs):
    address, name = https.address(outputs), https.name(outputs)
    tried = sorted({*TRIED, 21, 25, 110, 143, 3389, 5001, 8000, 8080, 8443})
    with ThreadPoolExecutor(len(tried)) as pool:
        answers = dict(zip(tried, pool.map(lambda port: https.in_clear(outputs, port), tried), strict=True))
    opened = {port: answer for port, answer in answers.items() if answer != https.CLOSED}
    assert set(opened) == {22, *ports(outputs)}
    assert opened.pop(22).startswith(b"SSH-2.0-")
    for port, answer in opened.items():
        assert not answer.startswith(b"HTTP/"), f"port {port} answers plain HTTP"
        assert https.handshake((address, port), name, TLSVersion.TLSv1_2) == "TLSv1.2"
        assert https.handshake((address, port), name, TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises(ssl.SSLError, match="alert protocol version"):
            https.handshake((address, port), name, TLSVersion.TLSv1, TLSVersion.TLSv1_1)
        with pytest.raises(ssl.SSLError, match="certificate verify failed"):
            https.handshake((address, port), "other.lab.example.com", TLSVersion.TLSv1_3)


@pytest.mark.parametrize(
    ("certificate", "check", "cause"),
    [
        ({"days": 10}, "certificate-renewal", ""),
        ({"trusted": False}, "certificate", "untrusted"),
        pytest.param({"days": -1}, "certificate", "expired", marks=pytest.mark.long),
        pytest.param({"names": ["other.lab.example.com"]}, "certificate", "wrong-name", marks=pytest.mark.long),
    ],
    ids=["ten days left", "another authority", "expired", "another name"],
)
def test_the_doctor_reports_a_certificate_that_clients_refuse_or_soon_will(outputs, certificate, check, cause):
    with shown(outputs, **certificate):
        found = examine("--quick")
    assert (found.status, found.broken) == (1, check), found.report
    assert found.report["broken"]["cause"] == cause


def test_docker_and_the_runner_refuse_a_certificate_of_another_authority(outputs):
    assert re.search("denied|unauthorized", docker_login(), re.IGNORECASE)
    with shown(outputs, trusted=False):
        assert "certificate" in docker_login()
        assert not re.search("is valid|is alive", on("runner", "gitlab-runner verify").output)


def test_a_renewal_by_aws_changes_nothing_in_the_stack(outputs):
    renew(outputs)
    again = lab("up")
    assert again.status == 0, again.output
    assert re.search(r"Resources:\s+\d+ unchanged", again.output), again.output


@pytest.fixture(scope="module")
def own_settings(outputs) -> Iterator[None]:
    """Tests of this module change domain and certificate; afterwards the stack has the settings of the lab again."""
    yield
    shown_certificates.restore()
    configure(domain=setting("domain"), hostedZoneId=setting("hostedZoneId"), **dict.fromkeys(PEM))
    repair()
    dns.clear()


@pytest.mark.long
def test_a_listener_that_serves_plain_http_is_found_and_the_next_up_changes_it_back(outputs, own_settings):
    [web] = [listener for listener in listeners() if listener["Port"] == 443]
    client("elbv2").modify_listener(ListenerArn=web["ListenerArn"], Protocol="TCP")
    eventually(lambda: https.in_clear(outputs, 443).startswith(b"HTTP/"))
    found = examine("--quick")
    assert (found.status, found.broken) == (1, "certificate"), found.report
    assert found.report["broken"]["cause"] == "plain-http"
    repair()
    assert examine("--quick").status == 0


WRONG: dict[str, tuple[Edits, str]] = {
    "realm without TLS": (
        {"configuration/registry_config.py": [('f"{external_url}/jwt/auth"', 'f"http{external_url[5:]}/jwt/auth"')]},
        "registry reachable failed",
    ),
    "uploads to absolute addresses": (
        {"configuration/registry_config.py": [('"relativeurls": True', '"relativeurls": False')]},
        "push failed",
    ),
    "external_url without TLS": (
        {
            "configuration/gitlab_rb.py": [
                ('f"external_url {ruby_string(external_url)}"', "f\"external_url 'http{external_url[5:]}'\"")
            ]
        },
        "login page through the load balancer failed",
    ),
}
"""Wrong programs, and the check that fails with each."""

NGINX_WITH_TLS: Edits = {"configuration/gitlab_rb.py": [("        \"nginx['listen_https'] = false\",\n", "")]}


@pytest.mark.long
@pytest.mark.parametrize(("edits", "message"), WRONG.values(), ids=WRONG)
def test_a_program_that_forgets_tls_somewhere_fails_the_check_of_that_part(own_settings, edits, message):
    refused_once_it_is_real(edits, message)


@pytest.mark.long
def test_a_gitlab_rb_that_does_not_work_gives_way_to_the_former_one_so_a_setting_can_be_taken_back(
    outputs, own_settings
):
    """An nginx with TLS does not start without a certificate; with one it refuses the load balancer's plain HTTP."""
    repair()  # the gitlab.rb of the wrong program before this test works, too
    back = "GitLab did not work with the new gitlab.rb, so it has the former one again"
    refused(NGINX_WITH_TLS, "configure_gitlab failed", back)
    assert examine("--quick").status == 0
    folder, name = "/etc/gitlab/ssl", https.name(outputs)
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -days 2"
    must("server", f"mkdir -p {folder} && {make} -keyout {folder}/{name}.key -out {folder}/{name}.crt")
    try:
        refused(NGINX_WITH_TLS, "configure_gitlab failed", "error: 400", back)
    finally:
        must("server", f"rm -r {folder}")
    assert examine("--quick").status == 0
    stack.preview(expect_no_changes=True)


@pytest.mark.long
def test_a_listener_that_offers_http_2_sends_it_to_an_nginx_that_does_not_know_it(outputs, own_settings):
    """AWS accepts the policy in front of a TCP target group, and then negotiates HTTP/2
    (kubernetes-sigs/aws-load-balancer-controller issue 2145).

    The acceptance's own clients request HTTP/1.1; curl, git and browsers prefer HTTP/2.
    """
    policy = "ssl_policy=TLS_POLICY if listener.tls else None,"
    alpn = f'{policy}\n                alpn_policy="HTTP2Preferred" if listener.tls else None,'
    page = f"{outputs['externalUrl']}/users/sign_in"
    ask = ["curl", "-sS", "--http2", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", page]
    ask += https.curl_options(outputs)

    def status() -> str:
        return subprocess.run(ask, capture_output=True, text=True, check=False).stdout

    with changed_program(IMPATIENT, {"components/load_balancer.py": [(policy, alpn)]}) as program:
        up(program=program)
        eventually(lambda: status() != "200")
    # An update would send no policy, and the listener would keep the former one.
    repair("--replace", "**Listener::gitlab-web", "--replace", "**Listener::gitlab-registry")
    eventually(lambda: status() == "200")


@pytest.mark.long
def test_a_docker_that_considers_the_registry_insecure_accepts_any_certificate(outputs, own_settings):
    insecure: Edits = {
        "components/gitlab_runner.py": [("lambda known: None if settings.serves_tls else known", "lambda known: known")]
    }
    with changed_program(insecure) as program:
        done = up(program=program)
    assert done.status == 0, done.output
    with shown(outputs, trusted=False):
        assert re.search("denied|unauthorized", docker_login(), re.IGNORECASE), "no check notices it"
    repair()
    with shown(outputs, trusted=False):
        assert "certificate" in docker_login()


@pytest.mark.long
def test_a18_a_listener_on_port_80_serves_in_clear_and_redirects_no_one(outputs, own_settings):
    before = https.in_clear(outputs, 80)
    ssh = '        Listener(\n            name="ssh",\n'
    also_plain: Edits = {
        "components/load_balancer.py": [
            (
                ssh,
                '        Listener(\n            name="plain",\n            port=80,\n            tls=False,\n'
                "            target=Place.SERVER,\n            target_port=GITLAB_HTTP_PORT,\n"
                "            client_address=ClientAddress.PROXY_HEADER,\n"
                '            health_check={**often, "protocol": "TCP"},\n        ),\n' + ssh,
            )
        ],
        "configuration/flows.py": [
            (
                '    yield Flow(Place.CLIENTS, Place.LOAD_BALANCER, web, "web and git over HTTP")\n',
                (
                    '    yield Flow(Place.CLIENTS, Place.LOAD_BALANCER, web, "web and git over HTTP")\n'
                    '    yield Flow(Place.CLIENTS, Place.LOAD_BALANCER, 80, "redirect")\n'
                ),
            )
        ],
    }
    with changed_program(also_plain) as program:
        done = up(program=program)
        assert done.status == 0, done.output
        eventually(lambda: https.in_clear(outputs, 80).startswith(b"HTTP/"))
        answer = https.in_clear(outputs, 80)
    repair()
    assert before == https.in_clear(outputs, 80) == https.CLOSED
    assert answer.startswith(b"HTTP/1.1 200"), answer


@pytest.mark.long
def test_a38_a_listener_does_not_accept_a_certificate_that_is_not_issued_yet(own_settings):
    configure(domain="other.lab.example.com")
    try:
        refused(
            {"components/certificate.py": [("return validation.certificate_arn, ", "return certificate.arn, ")]},
            "UnsupportedCertificate",
        )
    finally:
        configure(domain=setting("domain"))
    repair()


def own(names: list[str], *, issuer: authority.Authority = authority.OUTSIDER, days: float = 90) -> dict[str, str]:
    """The settings of a certificate of an own authority."""
    issued = issuer.issue(names, days=days)
    return dict(zip(PEM, (issued.certificate, issued.key, authority.OUTSIDER.certificate().read_text()), strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        ({"days": -1}, "expired"),
        ({"names": ["other.lab.example.com"]}, "other.lab.example.com"),
        ({"issuer": authority.LAB}, "certificateAuthority"),
    ],
    ids=["expired", "another name", "another authority"],
)
def test_an_own_certificate_that_clients_would_refuse_is_refused_by_the_preview(own_settings, certificate, message):
    configure(domain=setting("domain"), **own(**{"names": [setting("domain")], **certificate}))
    try:
        wrong = preview()
    finally:
        configure(**dict.fromkeys(PEM))
    assert wrong.status != 0
    assert "certificatePem" in wrong.output
    assert message in wrong.output
    assert "PRIVATE KEY" not in wrong.output


def records(operation: Operation, domain: str) -> set[tuple[str, ...]]:
    """The DNS records for the domain that a running `up` has shown."""
    [*_, events] = sorted(LOGS.glob("engine-events-*-up.jsonl"), key=lambda file: file.stat().st_mtime)
    texts = [operation.said()]
    for line in events.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the engine is still writing the last line
            texts.append(json.loads(line).get("diagnosticEvent", {}).get("message", ""))
    # The newest log can be that of the `up` before.
    return {found.groups() for text in texts for found in RECORD.finditer(text) if found[1].endswith(domain)}


def wait_for_records(operation: Operation, domain: str) -> set[tuple[str, ...]]:
    """Wait until a running `up` has shown both records."""
    eventually(lambda: {type_ for _, type_, _ in records(operation, domain)} == {"A", "CNAME"})
    return records(operation, domain)


def go_to(domain: str) -> None:
    """Set a domain that is not in Route 53; its records do not exist yet."""
    dns.clear()
    configure(domain=domain, hostedZoneId=None, **dict.fromkeys(PEM))


@pytest.mark.long
@pytest.mark.fault(
    "`Ctrl-C`, twice, while `up` waits for the domain's DNS records",
    sees="`^C received`; the log shows the records",
    heals="`pulumi cancel` if there is a lock; create the records; `pulumi up` continues with the same certificate",
)
def test_an_up_that_was_interrupted_while_it_waited_for_records_continues_with_the_same_certificate(
    own_settings, measured
):
    domain = "interrupted.example.net"
    go_to(domain)
    with starting_up() as operation:
        before = wait_for_records(operation, domain)
        requested = certificates()
        # The first one waits for the provider, which waits for the certificate.
        for _ in range(2):
            operation.process.send_signal(signal.SIGINT)
            time.sleep(3)
        assert operation.finish().status != 0
    stack.clear_stale()
    for record in before:
        dns.plant(*record)
    measured(repair())
    assert set(certificates()) < set(requested)
    assert stack.outputs()["externalUrl"] == f"https://{domain}"


@pytest.mark.long
def test_records_that_are_created_a_minute_late_are_waited_for_while_everything_else_continues(own_settings):
    go_to(ELSEWHERE)
    with starting_up() as operation:
        shown_records = wait_for_records(operation, ELSEWHERE)
        time.sleep(75)
        assert operation.process.poll() is None, operation.said()
        assert re.search(r"server-configure-gitlab\s+\**(updated|replaced)", operation.said()), operation.said()
        assert "the certificate has been waiting 1 of at most 45 minutes for _" in operation.said(), operation.said()
        for record in shown_records:
            dns.plant(*record)
        done = operation.finish()
    assert done.status == 0, done.output
    found = stack.outputs()
    assert found["externalUrl"] == f"https://{ELSEWHERE}"
    assert {(each["name"].rstrip("."), each["type"], each["value"].rstrip(".")) for each in found["dnsRecords"]} == (
        shown_records
    )
    assert (ELSEWHERE, "A", https.address(found)) in shown_records
    renew(found)
    stack.preview(expect_no_changes=True)


@pytest.mark.long
def test_an_own_certificate_of_an_own_authority_is_trusted_by_machines_and_jobs_and_renewed_alone(own_settings):
    dns.clear()
    dns.plant(ELSEWHERE, "A", stack.outputs()["publicAddresses"][Place.LOAD_BALANCER])
    given = own([ELSEWHERE])
    configure(domain=ELSEWHERE, hostedZoneId=None, **given)
    done = up()
    assert done.status == 0, done.output
    found = stack.outputs(show_secrets=True)
    assert found["externalUrl"] == f"https://{ELSEWHERE}"
    assert [record["type"] for record in found["dnsRecords"]] == ["A"]
    kept.pull(kept.push("with-an-own-authority"))
    assert f"\nhttps://{ELSEWHERE} verified\n" in job_says(found, ASK_IN_JOB)
    for role in ROLES:
        must(role, "openssl verify /dev/stdin", stdin=given["certificatePem"])
    for role in ("server", "runner"):
        must(role, f"curl -fsS --output /dev/null https://{ELSEWHERE}/users/sign_in")

    before = fingerprints(found)
    renewed = own([ELSEWHERE])
    configure(**renewed)
    steps = stack.preview_json()["steps"]
    changed = [step["urn"].rpartition("::")[2] for step in steps if step["op"] not in ("same", "read", "refresh")]
    assert changed == ["gitlab-own"]
    repair()
    eventually(lambda: not set(before) & set(fingerprints(found)), interval=0.3)
    assert examine("--quick").status == 0
    for settings in (given, renewed):
        secret = settings["certificateKeyPem"].splitlines()[1]
        assert not [log for log in LOGS.rglob("*") if log.is_file() and secret.encode() in log.read_bytes()]
