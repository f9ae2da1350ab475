"""AWS behaviour that is easy to miss (docs/aws.md): a program that misses it fails on the lab as it would on AWS.

Each wrong program is the product with one change, applied to the stack as the previous test left it. At the end, the
unchanged product repairs the stack.
"""

import shlex
import time
from pathlib import Path

import pytest

from lab import stack
from lab.workspace import ROOT
from tests.e2e.operations import (
    Finished,
    eventually,
    must,
    on,
    preview,
    repair,
    repeat_acceptance,
    step,
    target_health,
    up,
)
from tests.e2e.programs import IMPATIENT, Edits, changed_program

NOTHING_ELSE_CHANGED = "--refresh=false"
"""Saves the engine the refresh of ninety resources that are unchanged."""


@pytest.fixture(scope="module", autouse=True)
def _repaired(outputs):
    yield
    repair()


def refused(edits: Edits, *messages: str) -> None:
    """Apply the wrong program: `up` fails in AWS or in the acceptance, with these messages."""
    with changed_program(IMPATIENT, edits) as program:
        wrong = repeat_acceptance(NOTHING_ELSE_CHANGED, program=program)
    assert wrong.status != 0, wrong.output
    for message in messages:
        assert message in wrong.output


def refused_once_it_is_real(edits: Edits, *messages: str) -> Finished:
    """Like `refused`, if `up` can pass at first or fail a later check: Pulumi removes old rules last, and health checks
    take time.

    Returns the first `up`.
    """
    with changed_program(IMPATIENT, edits) as program:
        first = wrong = up(NOTHING_ELSE_CHANGED, program=program)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if wrong.status != 0 and all(message in wrong.output for message in messages):
                break
            wrong = repeat_acceptance(NOTHING_ELSE_CHANGED, program=program)
    assert wrong.status != 0, wrong.output
    for message in messages:
        assert message in wrong.output
    return first


def test_a1_a_group_as_source_never_matches_a_machine_that_calls_the_balancers_public_address():
    refused_once_it_is_real(
        {
            "configuration/flows.py": [
                (
                    "source_peer = target_peer = Peer.PUBLIC_ADDRESS",
                    "source_peer, target_peer = Peer.GROUP, Peer.PUBLIC_ADDRESS",
                )
            ]
        },
        "load balancer answers failed",
    )


@pytest.mark.long
def test_a1_a_group_as_destination_never_matches_the_balancers_public_address():
    refused_once_it_is_real(
        {
            "configuration/flows.py": [
                (
                    "source_peer = target_peer = Peer.PUBLIC_ADDRESS",
                    "source_peer, target_peer = Peer.PUBLIC_ADDRESS, Peer.GROUP",
                )
            ]
        },
        # Port 443 stays open, because the machine may connect to it anywhere.
        "git over SSH with GitLab's host key failed",
    )


@pytest.mark.long
def test_a2_a_public_address_never_matches_private_traffic():
    refused_once_it_is_real(
        {
            "configuration/flows.py": [
                (
                    "source_peer = Peer.GROUP if flow.source in GROUPS",
                    "source_peer = Peer.PUBLIC_ADDRESS if flow.source in GROUPS",
                )
            ]
        },
        "target healthy failed",
    )
    eventually(lambda: target_health(80) == target_health(2222) == target_health(5000) == "unhealthy")


@pytest.mark.long
def test_a25_a_flow_that_is_removed_is_open_for_the_proof_of_the_same_up_and_shut_for_the_next():
    repair()  # the flow must exist before
    first = refused_once_it_is_real(
        {
            "configuration/flows.py": [
                ('    yield Flow(Place.RUNNER, Place.LOAD_BALANCER, registry, "images of jobs")\n', "")
            ]
        },
        "registry reachable failed",
    )
    assert first.status == 0, first.output


def test_a3_without_egress_the_balancer_reaches_no_target_and_checks_no_health():
    refused_once_it_is_real(
        {
            "configuration/flows.py": [
                (
                    "    if flow.source in GROUPS:\n        allowing.append(Rule(flow.source",
                    "    if flow.source in MACHINES:\n        allowing.append(Rule(flow.source",
                )
            ]
        },
        "target healthy failed",
    )
    eventually(lambda: target_health(80) == target_health(2222) == target_health(5000) == "unhealthy")


def test_a4_nginx_refuses_what_comes_without_the_proxy_header_it_was_told_to_expect():
    refused_once_it_is_real(
        {
            "components/load_balancer.py": [
                ("proxy_protocol_v2=listener.client_address is ClientAddress.PROXY_HEADER", "proxy_protocol_v2=False"),
            ]
        },
        "target healthy failed",
    )
    log = "/var/log/gitlab/nginx/gitlab_error.log"
    assert 'broken header: "GET ' in must("server", f"tail -n 100 {log}")
    # These lines contain whole requests, also the runner's with its token, which test_end.py searches for.
    repair()
    must("server", f"truncate --size 0 {log}")


def test_a5_with_a_wider_allow_list_readiness_is_open_to_clients():
    refused(
        {
            "configuration/gitlab_rb.py": [
                (
                    "        \"letsencrypt['enable'] = false\",\n",
                    "        \"gitlab_rails['monitoring_whitelist'] = ['0.0.0.0/0']\",\n",
                )
            ]
        },
        "readiness hidden from clients failed",
    )


def test_a6_a_volume_in_use_or_of_another_zone_is_not_attached():
    refused(
        {
            "__main__.py": [
                (
                    'pulumi.export("externalUrl", external_url)\n',
                    (
                        "import pulumi_aws as aws\n"
                        'stray = aws.ebs.Volume("stray", availability_zone="us-east-1b", size=1, type="gp3")\n'
                        'for name, volume in (("stray", stray.id), ("taken", machines[Place.SERVER].data_volume.id)):\n'
                        "    aws.ec2.VolumeAttachment(\n"
                        '        name, device_name=f"/dev/sd{name[0]}", volume_id=volume,\n'
                        "        instance_id=machines[Place.RUNNER].instance_id,\n"
                        "    )\n"
                    ),
                )
            ]
        },
        "VolumeInUse",
        "InvalidVolume.ZoneMismatch",
    )


def test_a7_images_on_the_root_disk_are_found_out():
    refused(
        {
            "remote/run_registry.sh": [
                ('"$account" /srv/registry/images', '"$account" /var/lib/images'),
                ("source=/srv/registry/images", "source=/var/lib/images"),
            ]
        },
        "does not store images on its data volume",
    )


@pytest.mark.long
def test_a10_metadata_ask_for_a_token_and_end_before_a_container():
    read = "curl -s -o /dev/null -w '%{http_code}' -m 3 http://169.254.169.254/latest/meta-data/instance-id"
    ask = "curl -s -o /dev/null -w '%{http_code}' -m 3 -X PUT http://169.254.169.254/latest/api/token"
    ask += " -H X-aws-ec2-metadata-token-ttl-seconds:60"
    container = "nsenter --net --target $(docker inspect --format '{{.State.Pid}}' registry)"
    assert must("registry", read) == "401"
    assert must("registry", ask) == "200"
    assert on("registry", f"{container} {ask}").output.strip() == "000"
    with changed_program(
        {
            "components/virtual_machine.py": [
                ('http_tokens="required"', 'http_tokens="optional"'),
                ("http_put_response_hop_limit=1", "http_put_response_hop_limit=2"),
            ]
        }
    ) as program:
        changed = up(program=program)
        assert changed.status == 0, changed.output
    assert must("registry", read) == "200"
    assert must("registry", f"{container} {ask}") == "200"


def test_a11_a_target_whose_check_fails_gets_no_traffic():
    refused_once_it_is_real(
        {"components/load_balancer.py": [('"path": "/-/readiness"', '"path": "/-/nowhere"')]},
        "target healthy failed",
    )
    assert target_health(80) == "unhealthy"


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            {"components/load_balancer.py": [('target_type="instance",', 'target_type="instance", name="x" * 33,')]},
            "cannot be longer than 32 characters",
        ),
        (
            {"components/security.py": [("vpc_id=vpc_id,\n", 'vpc_id=vpc_id, name=f"sg-{place}",\n')]},
            "cannot begin with sg-",
        ),
    ],
    ids=["target group of 33 characters", "security group with sg-"],
)
def test_a12_a_name_that_aws_does_not_take_is_refused(edits, message):
    with changed_program(edits) as program:
        wrong = preview(program=program)
    assert wrong.status != 0
    assert message in wrong.output


def test_a17_a_listener_that_ends_at_openssh_shows_the_machines_host_key():
    refused(
        {
            "components/load_balancer.py": [
                ("target_port=GITLAB_SSHD_PORT", "target_port=22"),
            ],
            "configuration/flows.py": [("GITLAB_SSHD_PORT = 2222", "GITLAB_SSHD_PORT = 22")],
            "configuration/gitlab_rb.py": [("'[::]:{GITLAB_SSHD_PORT}'", "'[::]:2222'")],
        },
        "git over SSH with GitLab's host key failed",
        "SSH-2.0-OpenSSH",
    )


@pytest.mark.long
def test_a19_sign_up_is_open_until_it_is_shut_and_then_as_the_owner_says():
    def console(program: str, *arguments: str) -> str:
        command = ["gitlab-rails", "runner", program, *arguments]
        return must("server", shlex.join(command), stdin='{"signup_enabled": false}')

    def prepared(text: str, is_new: str) -> str:
        """Whether sign-up is open after the step's program ran."""
        console("Gitlab::CurrentSettings.update!(signup_enabled: true)")
        console(text, "of-the-test", "[]", "of-the-test/acceptance", "any", "instance_type", is_new)
        return console(ask)

    ask = "puts Gitlab::CurrentSettings.signup_enabled?"
    text = (ROOT / "remote/prepare_gitlab.rb").read_text()
    line = "current.update(known.to_h)"
    assert line in text
    assert console(ask) == "false"
    try:
        assert prepared(text.replace(line, "true"), "true") == "true"
        assert prepared(text, "true") == "false"
        assert prepared(text, "false") == "true"
        done = up("--replace", step("server-prepare-gitlab"))
        assert done.status == 0, done.output
        assert console(ask) == "true"
    finally:
        console("Gitlab::CurrentSettings.update!(signup_enabled: false)")
        console("Groups::DestroyService.new(Group.find_by_full_path('of-the-test'), User.first).execute")
        console("Ci::Runner.find_by(description: 'of-the-test').destroy")


def rotate_token_key(*options: str, program: Path | None = None) -> Finished:
    """Rotate the token key as documented in docs/operations.md."""
    must("server", "mkdir -p /root/old-token-key && mv /etc/gitlab/registry-token.* /root/old-token-key/")
    return up("--replace", step("server-make-token-key"), *options, program=program)


@pytest.mark.long
def test_a37_a_token_key_that_only_the_registry_was_told_of_is_refused_there():
    trigger = "token_key.result.apply(lambda pem: hashlib.sha256(pem.encode()).hexdigest()),"
    with changed_program(IMPATIENT, {"components/gitlab_server.py": [(trigger, "")]}) as program:
        done = up(NOTHING_ELSE_CHANGED, program=program)
        assert done.status == 0, done.output
        wrong = rotate_token_key(NOTHING_ELSE_CHANGED, program=program)
        assert wrong.status != 0
        assert "token accepted failed" in wrong.output
        assert "Key: GitLab signs with " in wrong.output
    advised = ("registry-run-registry", "server-configure-gitlab")
    done = up(*(word for name in advised for word in ("--replace", step(name))))
    assert done.status == 0, done.output
    done = rotate_token_key(NOTHING_ELSE_CHANGED)
    assert done.status == 0, done.output


@pytest.mark.long
def test_a26_a_proof_that_logs_in_as_root_breaks_once_the_password_is_changed():
    first = must("server", "cat /etc/gitlab/seeded-root-password")
    change = "User.find_by_username('root').update!(password: '{0}', password_confirmation: '{0}')\n"
    must("server", "gitlab-rails runner -", stdin=change.format("another-Secret-4711"))
    refused(
        {
            "programs/acceptance_checks/pipeline_checks.py": [
                (
                    '("acceptance:" + context.project.token)',
                    '("root:" + open("/etc/gitlab/seeded-root-password").read().strip())',
                )
            ]
        },
        "token accepted failed",
        "returned 401 for valid credentials",
    )
    assert repeat_acceptance().status == 0
    must("server", "gitlab-rails runner -", stdin=change.format(first))


def test_a29_a_rule_whose_description_has_an_apostrophe_is_refused():
    refused(
        {
            "configuration/flows.py": [
                ('"webhooks to GitLab itself"', '"webhooks to the server\'s own external_url"'),
            ]
        },
        "InvalidParameterValue: Invalid rule description. Valid descriptions are strings less than 256 characters",
    )


def test_a30_a_security_group_takes_no_more_than_sixty_rules_a_direction():
    refused(
        {
            "configuration/flows.py": [
                ("RULE_LIMIT = 60", "RULE_LIMIT = 600"),
                (
                    "Place.CLIENTS: settings.client_cidrs,",
                    'Place.CLIENTS: (*settings.client_cidrs, *(f"203.0.113.{number}/32" for number in range(18))),',
                ),
            ]
        },
        "RulesPerSecurityGroupLimitExceeded",
    )


SSHD_LOG = "/var/log/gitlab/gitlab-sshd/current"


def test_a27_a_server_that_speaks_first_does_not_hear_who_calls_before_the_client_has_spoken(outputs):
    """gitlab-sshd waits 0.5 s for a header, which comes with the client's first data. ssh-keyscan sends none."""
    with changed_program(
        IMPATIENT,
        {
            "components/load_balancer.py": [
                ("client_address=ClientAddress.PRESERVED", "client_address=ClientAddress.PROXY_HEADER")
            ],
            "configuration/gitlab_rb.py": [
                (
                    "        \"gitlab_sshd['enable'] = true\",\n",
                    "        \"gitlab_sshd['enable'] = true\",\n        \"gitlab_sshd['proxy_protocol'] = true\",\n",
                )
            ],
        },
    ) as program:
        wrong = up(NOTHING_ELSE_CHANGED, program=program)
        assert "git over SSH with GitLab's host key failed" in wrong.output, wrong.output
        # Users whose client sends first are not affected.
        eventually(lambda: "Permission denied (publickey)" in git_over_ssh(outputs["publicAddresses"]["balancer"]))


def git_over_ssh(address: str) -> str:
    """The output of ssh on the runner's machine, without a key."""
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    return on("runner", f"ssh {options} git@{address}").output


@pytest.mark.long
def test_a28_a_target_that_calls_itself_gets_no_answer_where_addresses_are_preserved(outputs):
    repair()
    ask = f"curl -s -o /dev/null -m 3 -w '%{{http_code}}' {outputs['externalUrl']}/users/sign_in"
    assert must("server", ask) == "200"
    preserving = "preserve_client_ip=str(listener.client_address is ClientAddress.PRESERVED).lower()"
    with changed_program({"components/load_balancer.py": [(preserving, 'preserve_client_ip="true"')]}) as program:
        changed = up(NOTHING_ELSE_CHANGED, program=program)
        # Only the server's own webhooks fail.
        assert changed.status == 0, changed.output
        assert target_health(80) == "healthy"
        assert must("runner", ask) == "200"
        eventually(lambda: on("server", ask).output.strip() == "000")
    repair()
    assert must("server", ask) == "200"


def test_a28_gitlab_sees_who_calls_by_ssh(outputs):
    repair()
    balancer = outputs["publicAddresses"]["balancer"]
    key = must("runner", f"ssh-keyscan -t ed25519 {balancer}")
    assert must("server", "cut -d' ' -f2 /var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub") in key
    callers = must("server", f"tail -n 20 {SSHD_LOG}")
    assert f'"remote_addr": "{outputs["publicAddresses"]["runner"]}"' in callers
    assert target_health(2222) == "healthy"


def gib(role: str, command: str) -> int:
    """The bytes that a command prints, in whole GiB."""
    return int(must(role, command).split()[-1]) // 1024**3


def grown_by_the_right_program_alone(machine: str, setting: str, mountpoint: str, disk: str, edits: Edits) -> None:
    """The wrong program does not use a larger `disk` below `mountpoint`; the product grows its file system."""
    size, file_system = f"blockdev --getsize64 {disk}", f"df --output=size --block-size=1 {mountpoint}"
    before = gib(machine, size)
    stack.configure(setting, str(before + 5))
    with changed_program(edits) as program:
        assert up(program=program).status == 0
    eventually(lambda: gib(machine, size) == before + 5)
    assert gib(machine, file_system) < before
    repair()
    assert gib(machine, file_system) >= before + 4


@pytest.mark.long
def test_a31_a_file_system_that_is_grown_before_its_disk_has_grown_stays_small():
    disk = "$(findmnt --noheadings --nofsroot --output SOURCE --mountpoint /srv/gitlab)"
    at_once = {"remote/grow_file_system.sh": [('    [ "$actual" -lt "$expected" ] || break\n', "    break\n")]}
    grown_by_the_right_program_alone("server", "serverDataVolumeSize", "/srv/gitlab", disk, at_once)


@pytest.mark.long
def test_a32_a_root_disk_is_filled_by_whoever_fills_it_and_by_nobody_else():
    not_the_root = {
        "remote/grow_file_system.sh": [("source=$(findmnt", '[ "$mountpoint" != / ] || exit 0\nsource=$(findmnt')]
    }
    grown_by_the_right_program_alone("runner", "runnerRootVolumeSize", "/", "/dev/nvme0n1", not_the_root)


def test_a35_a_registry_that_is_asked_for_its_images_health_has_none():
    refused(
        {
            "remote/run_registry.sh": [
                (
                    'if curl -fsS --max-time 10 --output /dev/null "http://127.0.0.1:$port/"; then return 0; fi',
                    (
                        "health=$(docker inspect --format '{{.State.Health.Status}}' registry) || exit 1\n"
                        '        if [ "$health" = healthy ]; then return 0; fi'
                    ),
                )
            ]
        },
        "run_registry failed",
        'map has no entry for key "Health"',
    )


@pytest.mark.long
def test_an_access_log_in_json_is_no_fault_of_the_load_balancers(outputs):
    line = """nginx['log_format'] = '{"time":"$time_iso8601","status":"$status","agent":"$http_user_agent"}'"""
    stack.configure("gitlabRb", line)
    try:
        changed = up()
    finally:
        stack.configure("gitlabRb", None)
        repair()
    assert changed.status == 0, changed.output


def test_a_mistake_in_gitlab_rb_is_told_by_its_line_and_what_it_says_nowhere(outputs):
    stack.configure("gitlabRb", "puma['per_worker_max_memory_mb'] = 1200\nx['y'] = 'hunter2'-Hunter3'")
    try:
        mistaken = up(NOTHING_ELSE_CHANGED)
    finally:
        stack.configure("gitlabRb", None)
    assert mistaken.status != 0
    assert "gitlabRb, line 2: " in mistaken.output
    said = mistaken.output + must("server", "cat /var/log/gitlab-stack/configure_gitlab.log; ls /etc/gitlab")
    assert "unter2" not in said
    assert "unter3" not in said
    assert "gitlab.rb.new" not in said
    repair()


def test_a39_without_a_routing_rule_any_user_gets_the_credentials_of_a_machines_role():
    ask = "curl -s -o /dev/null -w '%{http_code}' -m 3 -X PUT http://169.254.169.254/latest/api/token"
    ask += " -H X-aws-ec2-metadata-token-ttl-seconds:60"
    anyone = f"runuser -u ec2-user -- {ask} || true"
    assert must("server", anyone) == "000"
    refused = {"programs/restrict-metadata": [("uidrange 1-4294967294", "uidrange 1-1")]}
    with changed_program(IMPATIENT, refused) as program:
        must("server", "ip rule delete to 169.254.169.254")
        changed = up(NOTHING_ELSE_CHANGED, program=program)
    assert changed.status != 0, changed.output
    assert "another routing rule lets every user reach the metadata service" in changed.output
    assert must("server", anyone) == "200"
