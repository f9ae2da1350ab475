"""The program as a whole: the resources that it registers, their order, and their secrets."""

import asyncio
import base64
import json
import re
import shlex
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from components import acceptance, certificate, remote_host
from configuration import acceptance_project, checks, remote_step
from configuration.checks import Endpoints
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, REMOTE, program, script
from configuration.zipapp import build_zipapp
from tests import engine
from tests.certificates import issue
from tests.conftest import (
    KEPT,
    OTHER_REGISTRY_IMAGE,
    dev_config,
    openssh_pair,
    own_authority,
    own_certificate,
    own_certificate_config,
    requested_certificate_config,
)
from tests.engine import (
    DIGEST,
    GIT_HOST_KEY,
    HOST_KEY,
    IMAGE,
    RUNNER_TOKEN,
    Graph,
    Registered,
    run_program,
)
from validation import certificates, ssh_agent

MACHINES = ("server", "registry", "runner")
INSTANCE = "aws:ec2/instance:Instance"
EIP = "aws:ec2/eip:Eip"
INTERFACE = "aws:ec2/networkInterface:NetworkInterface"
VOLUME = "aws:ebs/volume:Volume"
ATTACHMENT = "aws:ec2/volumeAttachment:VolumeAttachment"
COMMAND = "command:remote:Command"
STASH = "pulumi:index:Stash"
TARGET_GROUP = "aws:lb/targetGroup:TargetGroup"
CHECK_STEPS = ("server-run-checks", "runner-run-checks", "registry-run-checks", "server-run-pipeline")
LISTENER = "aws:lb/listener:Listener"
CERTIFICATE = "aws:acm/certificate:Certificate"
VALIDATION = "aws:acm/certificateValidation:CertificateValidation"
RECORD = "aws:route53/record:Record"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"


def payload(graph: Graph, step: str) -> list[str]:
    """The lines that a step gets on standard input after its script."""
    return [part.decode() for part in payload_bytes(graph, step)]


def payload_bytes(graph: Graph, step: str) -> list[bytes]:
    """The same for a step that gets a binary file."""
    stdin = graph.step(step).inputs["stdin"]
    size, rest = stdin.split("\n", 1)
    return [base64.b64decode(line) for line in rest.encode()[int(size) :].decode().splitlines()]


def public_ip(graph: Graph, place: str) -> str:
    return graph.outputs["publicAddresses"][place]


def private_ip(graph: Graph, place: str) -> str:
    return graph.outputs["privateAddresses"][place]


def test_there_are_three_machines_each_on_an_interface_that_has_its_elastic_address_first(graph):
    instances = graph.of_type(INSTANCE)
    assert sorted(instance.name for instance in instances) == sorted(MACHINES)
    for instance in instances:
        interface = graph.one(INTERFACE, f"gitlab-{instance.name}")
        address = graph.one(EIP, f"gitlab-{instance.name}")
        assert instance.inputs["networkInterfaces"] == [
            {"networkInterfaceId": f"gitlab-{instance.name}-id", "deviceIndex": 0}
        ]
        assert address.inputs["networkInterface"] == f"gitlab-{instance.name}-id"
        assert graph.comes_after(instance, address)
        assert graph.comes_after(instance, interface)


def test_four_elastic_addresses_fit_the_default_quota_of_five(graph):
    assert len(graph.of_type(EIP)) == 4


def test_machines_demand_imdsv2_and_have_an_encrypted_root_that_fits_the_package(graph):
    for instance in graph.of_type(INSTANCE):
        assert instance.inputs["metadataOptions"]["httpTokens"] == "required"
        assert instance.inputs["metadataOptions"]["httpPutResponseHopLimit"] == 1
        root = instance.inputs["rootBlockDevice"]
        assert root["encrypted"] is True
        assert root["volumeType"] == "gp3"
        assert root["volumeSize"] >= 30


def test_machines_outlive_a_new_image_and_changed_user_data_and_go_before_they_are_replaced(graph):
    for instance in graph.of_type(INSTANCE):
        assert {"userDataBase64", "ami"} <= set(instance.request.ignoreChanges)
        assert instance.request.deleteBeforeReplace


def test_machines_outlive_another_key_pair_and_are_made_with_the_one_of_the_settings(graph):
    for instance in graph.of_type(INSTANCE):
        assert "keyName" in instance.request.ignoreChanges
        assert instance.inputs["keyName"] == graph.one("aws:ec2/keyPair:KeyPair", "gitlab").name


@pytest.mark.parametrize("role", MACHINES)
def test_a_machine_that_refuses_the_key_is_named_with_the_line_to_add(graph, role):
    failed = pulumi.ErrorHookArgs("", "", f"{role}-host-key", COMMAND)
    refused = "ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey]"
    failed.errors = [f"after 60 failed attempts: {refused}, no supported methods remain"]
    explain = graph.error_hooks[f"{role}-key-refused"].callback
    with pytest.raises(PermissionError) as refusal:
        asyncio.run(explain(failed))
    address = public_ip(graph, role)
    assert f"the {role} machine at {address} does not accept the key pair of sshPublicKey" in str(refusal.value)
    assert "Add this line to /home/ec2-user/.ssh/authorized_keys there" in str(refusal.value)
    assert str(refusal.value).endswith(f": {openssh_pair()[0]}")
    failed.errors = ["Process exited with status 1"]
    assert asyncio.run(explain(failed)) is False


def test_every_remote_step_explains_a_refused_key(graph):
    for step in graph.of_type(COMMAND):
        assert list(step.request.hooks.on_error) == [f"{step.name.split('-')[0]}-key-refused"]


def test_the_image_is_red_hats_newest_rhel_8_with_the_fee_on_the_aws_bill(graph):
    [arguments] = graph.asked("aws:ec2/getAmi:getAmi")
    assert arguments["owners"] == ["309956199498"]
    assert arguments["mostRecent"] is True
    assert {"name": "name", "values": ["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]} in arguments["filters"]
    assert {instance.inputs["ami"] for instance in graph.of_type(INSTANCE)} == {"ami-0123456789abcdef0"}


def test_a_pinned_image_is_looked_up_by_its_id_alone(tls_graph):
    [arguments] = tls_graph.asked("aws:ec2/getAmi:getAmi")
    assert arguments["filters"] == [{"name": "image-id", "values": ["ami-0fedcba9876543210"]}]
    assert "owners" not in arguments
    assert {instance.inputs["ami"] for instance in tls_graph.of_type(INSTANCE)} == {"ami-0fedcba9876543210"}


def test_user_data_is_cloud_config_within_ec2s_limit_and_without_any_secret(graph, tls_graph):
    secrets = [
        RUNNER_TOKEN,
        "PRIVATE KEY",
        "first-Secret-4711",
        "mail-secret",
        "extra-secret",
    ]
    for instance in [*graph.of_type(INSTANCE), *tls_graph.of_type(INSTANCE)]:
        text = base64.b64decode(instance.inputs["userDataBase64"]).decode()
        assert text.startswith("#cloud-config\n")
        assert len(text.encode()) <= 16384
        assert not [secret for secret in secrets if secret in text]
        assert yaml.safe_load(text)["runcmd"][-1] == ["/usr/local/sbin/first-boot"]
        assert "userData" not in instance.inputs


def test_data_lie_on_encrypted_volumes_in_the_machines_zone(graph):
    assert sorted(volume.name for volume in graph.of_type(VOLUME)) == ["registry-data", "server-data"]
    for volume in graph.of_type(VOLUME):
        assert volume.inputs["encrypted"] is True
        assert volume.inputs["type"] == "gp3"
        assert volume.inputs["availabilityZone"] == "eu-central-1a"
        assert volume.request.protect
    for attachment in graph.of_type(ATTACHMENT):
        assert attachment.inputs["stopInstanceBeforeDetaching"] is True
        assert attachment.request.deleteBeforeReplace


def test_deletion_protection_covers_the_volumes_and_the_balancers_address_and_can_be_switched_off(graph, tls_graph):
    protected = {(resource.type, resource.name) for resource in graph.resources if resource.request.protect}
    assert protected == {(VOLUME, "server-data"), (VOLUME, "registry-data"), (EIP, "gitlab-balancer")}
    assert not [resource for resource in tls_graph.resources if resource.request.protect]


def test_the_balancer_is_a_network_balancer_on_its_fixed_address_with_a_group_from_the_start(graph):
    [balancer] = graph.of_type("aws:lb/loadBalancer:LoadBalancer")
    assert balancer.inputs["loadBalancerType"] == "network"
    assert balancer.inputs["subnetMappings"] == [{"subnetId": "gitlab-id", "allocationId": "eipalloc-gitlab-balancer"}]
    assert balancer.inputs["securityGroups"] == ["gitlab-balancer-id"]


@pytest.mark.parametrize(
    ("name", "port", "target_port", "check"),
    [
        ("gitlab-web", 80, 80, {"protocol": "HTTP", "path": "/-/readiness", "matcher": "200"}),
        ("gitlab-ssh", 22, 2222, {"protocol": "TCP"}),
        ("gitlab-registry", 5000, 5000, {"protocol": "HTTP", "path": "/", "matcher": "200"}),
    ],
)
def test_each_listener_leads_to_its_target(graph, name, port, target_port, check):
    listener = graph.one(LISTENER, name)
    target_group = graph.one(TARGET_GROUP, name)
    assert (listener.inputs["port"], listener.inputs["protocol"]) == (port, "TCP")
    assert listener.inputs["defaultActions"][0]["targetGroupArn"] == f"arn:aws:elasticloadbalancing:{name}"
    assert target_group.inputs["port"] == target_port
    assert target_group.inputs["healthCheck"].items() >= check.items()


def test_a_proxy_header_only_where_the_client_speaks_first(graph):
    with_header = {group.name for group in graph.of_type(TARGET_GROUP) if group.inputs["proxyProtocolV2"]}
    assert with_header == {"gitlab-web"}
    rendered = payload(graph, "server-configure-gitlab")[0]
    configured = re.findall(r"^(\w+)\['proxy_protocol'\] = true", rendered, re.MULTILINE)
    assert configured == ["nginx"]


def test_client_addresses_are_preserved_only_where_no_machine_calls_itself(graph):
    preserving = {group.name for group in graph.of_type(TARGET_GROUP) if group.inputs["preserveClientIp"] == "true"}
    assert preserving == {"gitlab-ssh"}
    calls_of_its_target = [r for r in graph.of_type(EGRESS) if r.name.startswith("gitlab-server-to-balancer")]
    assert graph.one(LISTENER, "gitlab-ssh").inputs["port"] not in [
        rule.inputs["toPort"] for rule in calls_of_its_target
    ]
    assert calls_of_its_target  # on other ports


def test_clients_of_a_target_that_has_gone_are_cut_off(graph):
    for target_group in graph.of_type(TARGET_GROUP):
        assert target_group.inputs["connectionTermination"] is True
        assert target_group.inputs["deregistrationDelay"] == 30


@pytest.mark.parametrize("certificate", ["tls_graph", "requested_graph", "own_graph"])
def test_with_a_certificate_tls_ends_at_the_balancer_and_nothing_is_served_in_clear(certificate, request):
    graph = request.getfixturevalue(certificate)
    assert {(listener.inputs["port"], listener.inputs["protocol"]) for listener in graph.of_type(LISTENER)} == {
        (443, "TLS"),
        (5000, "TLS"),
        (22, "TCP"),
    }
    for listener in graph.of_type(LISTENER):
        assert ("certificateArn" in listener.inputs) == (listener.inputs["protocol"] == "TLS")
    assert graph.outputs["externalUrl"] == "https://git.example.com"
    assert "external_url 'https://git.example.com'" in payload(graph, "server-configure-gitlab")[0]
    assert "realm: https://git.example.com/jwt/auth" in payload(graph, "registry-run-registry")[0]
    assert "insecure-registries" not in payload(graph, "runner-install-docker")[0]
    *_, insecure = shlex.split(graph.step("runner-install-runner").inputs["create"])
    assert insecure == ""


def test_a_listener_that_changes_between_tls_and_tcp_is_a_new_one_on_the_same_port(graph):
    for listener in graph.of_type(LISTENER):
        assert list(listener.request.replaceOnChanges) == ["protocol"], "AWS refuses the former security policy"
        assert listener.request.deleteBeforeReplace


def test_a_domain_in_a_hosted_zone_gets_the_balancers_address_before_the_balancer_exists(graph, tls_graph):
    [record] = tls_graph.of_type(RECORD)
    assert record.inputs["records"] == [public_ip(tls_graph, "balancer")]
    assert not tls_graph.comes_after(record, tls_graph.one("aws:lb/loadBalancer:LoadBalancer", "gitlab"))
    for step in ("runner-configure-runner", *CHECK_STEPS):
        assert tls_graph.comes_after(tls_graph.step(step), record)
    assert not graph.of_type(RECORD)


def test_without_a_certificate_in_the_settings_one_is_requested_and_its_record_made(requested_graph):
    certificate, validation = requested_graph.one(CERTIFICATE, "gitlab"), requested_graph.one(VALIDATION, "gitlab")
    assert {key: value for key, value in certificate.inputs.items() if key != "tags"} == {
        "domainName": "git.example.com",
        "validationMethod": "DNS",
        "keyAlgorithm": "RSA_2048",
    }
    assert not certificate.request.deleteBeforeReplace, "ACM does not delete a certificate that a listener uses"
    record = requested_graph.one(RECORD, "gitlab-validation")
    assert record.inputs == {
        "zoneId": "Z0123456789ABC",
        "name": "_0123456789abcdef.git.example.com.",
        "type": "CNAME",
        "ttl": 60,
        "records": ["_fedcba9876543210.acm-validations.aws."],
        "allowOverwrite": True,
    }
    assert requested_graph.comes_after(validation, record)
    assert validation.request.customTimeouts.create == "45m"
    assert requested_graph.outputs["dnsRecords"] == []


def test_records_of_a_former_domain_are_deleted_before_the_new_ones_are_created(requested_graph):
    records = requested_graph.of_type(RECORD)
    assert {record.name for record in records} == {"gitlab", "gitlab-validation"}
    for record in records:
        assert record.request.deleteBeforeReplace, "an `up` back to that domain would delete its new record last"


def test_only_the_listeners_with_tls_and_what_uses_them_wait_for_the_certificate(requested_graph):
    validation = requested_graph.one(VALIDATION, "gitlab")
    waiting = {each.name for each in requested_graph.resources if requested_graph.comes_after(each, validation)}
    steps = {"runner-configure-runner", *CHECK_STEPS, "registry-find-image"}
    assert waiting == {"gitlab-web", "gitlab-registry", *steps}


def test_records_of_a_domain_outside_of_route_53_are_shown_in_one_message_and_in_the_outputs():
    graph = run_program(requested_certificate_config())
    [(text, component)] = graph.shown
    address = public_ip(graph, "balancer")
    first, *records = text.splitlines()
    assert first == (
        "create these DNS records; the certificate waits for them, at most 45 minutes, then run pulumi up again:"
    )
    assert records == [
        f"  git.example.com A {address}",
        "  _0123456789abcdef.git.example.com CNAME _fedcba9876543210.acm-validations.aws",
    ]
    assert component == "gitlab:certificate:Certificate"
    assert [" ".join(["", "", *record.values()])[1:] for record in graph.outputs["dnsRecords"]] == [
        record[1:] for record in records
    ]
    assert not graph.of_type(RECORD)


def test_a_wait_for_the_records_is_reported_until_the_certificate_is_issued_or_the_wait_fails(monkeypatch):
    shown: list[tuple[str, pulumi.Resource]] = []
    monkeypatch.setattr(pulumi.log, "info", lambda text, resource: shown.append((text, resource)))
    monkeypatch.setattr(certificate, "PROGRESS_INTERVAL", 0.01)
    record = {"name": "_0123.git.example.com", "type": "CNAME", "value": "_fedc.acm-validations.aws"}
    component = cast(pulumi.Resource, SimpleNamespace())

    async def wait(result: str | Exception) -> None:
        issued = asyncio.get_running_loop().create_future()
        report = asyncio.ensure_future(certificate.report_wait([record], issued, component))
        while len(shown) < 2:
            await asyncio.sleep(0.005)
        if isinstance(result, str):
            issued.set_result(result)
        else:
            issued.set_exception(result)
        await asyncio.wait_for(report, 1)

    for result in ("arn", ValueError("timed out")):
        shown.clear()
        asyncio.run(wait(result))
        assert shown[:2] == [
            (
                f"the certificate has been waiting {minutes} of at most 45 minutes for _0123.git.example.com CNAME",
                component,
            )
            for minutes in (1, 2)
        ]


def test_a_preview_of_a_new_stack_says_that_records_will_be_shown():
    graph = run_program(requested_certificate_config(), preview=True)
    assert [text.partition(";")[0] for text, _ in graph.shown] == [
        "pulumi up will show the DNS records to create as soon as it knows them"
    ]
    assert graph.outputs["dnsRecords"] is None


@pytest.mark.parametrize("fixture", ["graph", "tls_graph", "requested_graph"])
def test_without_a_domain_or_with_a_hosted_zone_there_is_no_record_to_create(fixture, request):
    graph = request.getfixturevalue(fixture)
    assert graph.outputs["dnsRecords"] == []
    assert graph.shown == []


@pytest.mark.parametrize("fixture", ["own_graph", "reduced_graph"])
def test_the_address_record_is_the_users_without_a_hosted_zone_whichever_way_to_a_certificate(fixture, request):
    graph = request.getfixturevalue(fixture)
    assert graph.outputs["dnsRecords"] == [
        {"name": "git.example.com", "type": "A", "value": public_ip(graph, "balancer")}
    ]


def test_an_own_certificate_is_imported_with_its_chain_and_its_key_stays_secret(own_graph):
    own, root = own_certificate(), own_authority()
    imported = own_graph.one(CERTIFICATE, "gitlab-own")
    assert imported.inputs["certificateBody"] == own.pem
    assert imported.inputs["certificateChain"] == root.pem
    assert imported.inputs["privateKey"] == own.key_pem
    assert "privateKey" in imported.secret_inputs
    assert not own_graph.of_type(VALIDATION)
    texts = [str(each.inputs) for each in own_graph.resources if each is not imported] + [str(own_graph.outputs)]
    assert not [text for text in texts if own.key_pem.splitlines()[1] in text]


def test_a_renewed_certificate_changes_nothing_else_and_another_type_of_key_replaces_it(own_graph):
    def imported(graph: Graph) -> Registered:
        return graph.one(CERTIFICATE, "gitlab-own")

    new = issue(issuer=own_authority())
    renewed = run_program(own_certificate_config(**new.settings(authority=own_authority())))
    before, after = ({each.urn: each.inputs for each in graph.resources} for graph in (own_graph, renewed))
    assert [urn for urn, inputs in after.items() if inputs != before[urn]] == [imported(renewed).urn]
    for graph, own in ((own_graph, own_certificate()), (renewed, new)):
        [found] = certificates.parse(own.pem)
        trigger = ", ".join([found.key, *found.usages])
        assert imported(graph).request.replacement_trigger.string_value == trigger
    assert imported(renewed).request.replacement_trigger == imported(own_graph).request.replacement_trigger
    [other] = certificates.parse(issue(issuer=own_authority(), key=ec.generate_private_key(ec.SECP384R1())).pem)
    assert not imported(own_graph).request.replacement_trigger.string_value.startswith(other.key)


def test_addresses_are_wired_into_every_configuration_that_needs_them(graph):
    url = f"http://{public_ip(graph, 'balancer')}"
    registry = f"{public_ip(graph, 'balancer')}:5000"
    gitlab_rb = payload(graph, "server-configure-gitlab")[0]
    assert f"external_url '{url}'" in gitlab_rb
    assert f"gitlab_rails['registry_host'] = '{public_ip(graph, 'balancer')}'" in gitlab_rb
    assert f"gitlab_rails['registry_api_url'] = 'http://{private_ip(graph, 'registry')}:5000'" in gitlab_rb
    assert yaml.safe_load(payload(graph, "registry-run-registry")[0])["auth"]["token"]["realm"] == f"{url}/jwt/auth"
    assert payload(graph, "registry-run-registry")[1] == engine.CERTIFICATE
    assert json.loads(payload(graph, "runner-install-docker")[0])["insecure-registries"] == [registry]
    assert shlex.split(graph.step("runner-install-runner").inputs["create"])[-1] == registry
    runner_config = payload(graph, "runner-configure-runner")[0]
    assert f'url = "{url}"' in runner_config
    assert f'token = "{RUNNER_TOKEN}"' in runner_config
    assert graph.outputs["externalUrl"] == url
    assert graph.outputs["registryHost"] == registry


def test_every_step_reaches_its_own_machine_and_all_but_one_hold_it_to_its_host_key(graph):
    for command in graph.of_type(COMMAND):
        machine = command.name.split("-")[0]
        connection = command.inputs["connection"]
        assert connection["host"] == public_ip(graph, machine)
        assert connection["user"] == "ec2-user"
        if command.name == f"{machine}-host-key":
            assert "hostKey" not in connection
        else:
            assert connection["hostKey"] == HOST_KEY


def what_changes(command: Registered) -> dict[str, Any]:
    """The inputs of a command whose changes make the engine run it again."""
    ignored = set(command.request.ignoreChanges)
    return {name: value for name, value in command.inputs.items() if name not in ignored}


def test_no_setting_asks_a_machine_for_its_host_key_again(graph, other_graph):
    for machine in MACHINES:
        before, after = (each.step(f"{machine}-host-key") for each in (graph, other_graph))
        assert what_changes(before) == what_changes(after) == {"triggers": [f"{machine}-id"]}


def test_no_text_of_this_program_asks_a_machine_for_its_host_key_again(graph, monkeypatch):
    for name in ("script", "program"):
        written = getattr(remote_step, name)
        monkeypatch.setattr(remote_step, name, lambda file, written=written: written(file) + "# another version\n")
    for name in ("host_key_command", "prepare_command"):
        written = getattr(remote_step, name)
        monkeypatch.setattr(remote_host, name, lambda *ports, written=written: written(*ports) + " ")
    monkeypatch.setattr(remote_host, "DIAL_ATTEMPTS", 7)
    changed = run_program(dev_config())
    repeated = {
        step.name for step in changed.of_type(COMMAND) if what_changes(step) != what_changes(graph.step(step.name))
    }
    every = {step.name for step in graph.of_type(COMMAND)}
    assert repeated == every - {f"{machine}-host-key" for machine in MACHINES}


def test_what_a_machine_says_its_host_key_is_counts_as_long_as_it_is_the_same_machine(graph):
    for machine in MACHINES:
        kept = graph.one(STASH, f"{machine}-host-key")
        assert kept.inputs == {"input": HOST_KEY}
        assert not kept.secret_inputs
        assert list(kept.request.ignoreChanges) == ["input"]
        assert kept.request.replacement_trigger.string_value == f"{machine}-id"


@pytest.fixture
def asked_keys(monkeypatch) -> list[str]:
    """Public keys for which the SSH agent was asked; it has all of them."""
    keys: list[str] = []
    monkeypatch.setattr(ssh_agent, "problem", keys.append)
    return keys


@pytest.fixture(scope="module")
def agent_graph() -> Graph:
    """The dev stack without a private key in its settings: the user's SSH agent holds it."""
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ssh_agent, "problem", asked.append)
        graph = run_program(dev_config(sshPrivateKey=None))
    assert asked == [openssh_pair()[0]]
    return graph


def test_without_a_private_key_in_the_settings_there_is_none_in_any_input_or_output(agent_graph):
    everything = json.dumps([[resource.inputs for resource in agent_graph.resources], agent_graph.outputs])
    assert "privateKey" not in everything
    assert "PRIVATE KEY" not in everything
    assert not [
        command for command in agent_graph.of_type(COMMAND) if "agentSocketPath" in command.inputs["connection"]
    ]
    assert agent_graph.outputs["inspection"]["publicKey"] == openssh_pair()[0]


def test_a_stack_that_gives_its_private_key_up_repeats_what_has_it_recorded_and_trusts_no_other_machine(
    graph, agent_graph
):
    for machine in MACHINES:
        before, after = (each.step(f"{machine}-host-key") for each in (graph, agent_graph))
        assert what_changes(before) == {"triggers": [f"{machine}-id"]}
        assert what_changes(after) == {"triggers": [f"{machine}-id", "ssh-agent"]}
        kept = [each.one(STASH, f"{machine}-host-key").request for each in (graph, agent_graph)]
        assert kept[0].replacement_trigger == kept[1].replacement_trigger
        assert list(kept[1].ignoreChanges) == ["input"]


def test_another_key_pair_in_another_agent_changes_no_step(agent_graph, asked_keys, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    changed = run_program(dev_config(sshPublicKey=openssh_pair(b"o")[0], sshPrivateKey=None))
    assert asked_keys == [openssh_pair(b"o")[0]]
    for command in agent_graph.of_type(COMMAND):
        assert changed.step(command.name).inputs == command.inputs


def test_the_same_settings_give_the_same_steps_whatever_agent_the_shell_has(graph, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    again = run_program(dev_config())
    for command in graph.of_type(COMMAND):
        assert again.step(command.name).inputs == command.inputs


def test_the_host_keys_of_a_stack_that_exists_are_taken_from_where_it_has_them(graph):
    for machine in MACHINES:
        [alias] = graph.step(f"{machine}-host-key").request.aliases
        assert alias.spec.name == f"{machine}-first-contact"


def test_every_step_is_repeated_on_a_new_machine_and_dies_with_it(graph):
    for command in graph.of_type(COMMAND):
        machine = command.name.split("-")[0]
        assert command.inputs["triggers"][0] == f"{machine}-id"
        assert command.request.deletedWith.endswith(f"aws:ec2/instance:Instance::{machine}")
        assert command.request.deleteBeforeReplace
        assert "delete" not in command.inputs


def test_no_step_shows_what_it_does_or_feeds_earlier_output_back(graph):
    for command in graph.of_type(COMMAND):
        assert command.inputs["addPreviousOutputInEnv"] is False
        if command.name not in (*CHECK_STEPS, "server-prepare-gitlab"):
            assert command.inputs["logging"] == "none"


def test_a_run_of_checks_shows_what_it_waits_for_and_neither_is_told_a_secret_nor_answers_with_one(graph):
    for name in CHECK_STEPS:
        run = graph.step(name)
        assert run.inputs["logging"] == "stderr"
        assert "stdin" not in run.secret_inputs
        assert not {"stdout", "stderr"} & set(run.request.additionalSecretOutputs)


def test_secrets_travel_on_standard_input_only_and_stay_secret(graph, tls_graph):
    for each in (graph, tls_graph):
        for secret in (RUNNER_TOKEN, "first-Secret-4711", "mail-secret", "extra-secret"):
            for resource in each.resources:
                for key, value in resource.inputs.items():
                    decoded = (
                        b"\n".join(payload_bytes(each, resource.name))
                        if key == "stdin" and not resource.name.endswith("-prepare-host")
                        else b""
                    )
                    if secret in json.dumps(value) or secret.encode() in decoded:
                        assert (resource.type, key) == (COMMAND, "stdin"), f"{secret} in {resource.name}.{key}"
                        assert "stdin" in resource.secret_inputs, f"{secret} is not secret in {resource.name}"
    for command in graph.of_type(COMMAND):
        assert "connection" in command.secret_inputs


def test_a_new_gitlab_is_set_up_as_the_program_and_then_the_owner_say_in_secret(other_graph):
    prepare = other_graph.step("server-prepare-gitlab")
    settings = json.loads(payload_bytes(other_graph, "server-prepare-gitlab")[1])
    assert settings["require_admin_two_factor_authentication"] is True
    assert settings["admin_mode"] is False
    assert settings["akismet_api_key"] == "of-akismet"
    assert "signup_enabled" not in settings, "GitLab's default must remain"
    assert "stdin" in prepare.secret_inputs
    assert prepare.inputs["logging"] == "stderr", "settings unknown to this GitLab are reported there"


def test_the_runner_is_not_shut_out_for_failed_logins_by_the_address_that_gitlab_sees(graph, tls_graph):
    for each in (graph, tls_graph):
        text = payload_bytes(each, "server-configure-gitlab")[0].decode()
        assert f"'ip_whitelist' => ['127.0.0.1', '{public_ip(each, 'runner')}']" in text


def test_what_the_machines_answer_in_secret_is_marked_so(graph):
    assert {"stdout", "stderr"} <= set(graph.step("server-prepare-gitlab").request.additionalSecretOutputs)


def test_the_stack_tells_its_addresses_and_the_proof_openly_and_no_password(graph):
    assert graph.secret_outputs == {"inspection"}
    assert "make root-password" in graph.outputs["initialRootPassword"]
    assert graph.outputs["instanceIds"] == {machine: f"{machine}-id" for machine in MACHINES}
    assert graph.outputs["acceptance"] == [
        {"check": "push", "hop": "push", "seconds": 0.5},
        {"check": "image on the volume", "hop": "image on the volume", "seconds": 0.1},
    ]


def test_the_stack_tells_in_secret_what_is_needed_to_look_at_it_later(graph):
    inspection = graph.outputs["inspection"]
    assert inspection["machines"] == {
        machine: {"address": public_ip(graph, machine), "hostKey": HOST_KEY} for machine in MACHINES
    }
    assert [inspection["publicKey"], inspection["privateKey"]] == list(openssh_pair())
    stack = Endpoints(**inspection["stack"])
    assert stack.external_url == graph.outputs["externalUrl"]
    assert stack.registry_private_address == private_ip(graph, "registry")
    assert stack.git_ssh_host_key == GIT_HOST_KEY


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("server-host-key", "server-prepare-host"),
        ("server-prepare-host", "server-mount-data"),
        ("server-mount-data", "server-make-token-key"),
        ("server-make-token-key", "server-install-gitlab"),
        ("server-mount-data", "server-trust-authority"),
        ("server-trust-authority", "server-install-gitlab"),
        ("server-restrict-metadata", "server-mount-data"),
        ("registry-restrict-metadata", "registry-mount-data"),
        ("server-install-gitlab", "server-configure-gitlab"),
        ("registry-trust-authority", "registry-install-docker"),
        ("runner-trust-authority", "runner-install-docker"),
        ("runner-trust-authority", "runner-configure-runner"),
        ("server-configure-gitlab", "server-prepare-gitlab"),
        ("server-make-token-key", "registry-run-registry"),
        ("registry-mount-data", "registry-install-docker"),
        ("registry-install-docker", "registry-run-registry"),
        ("registry-run-registry", "registry-install-registry-tree"),
        ("registry-install-registry-tree", "registry-schedule-garbage-collection"),
        ("registry-schedule-garbage-collection", "registry-schedule-backups"),
        ("server-prepare-gitlab", "server-schedule-backups"),
        ("server-schedule-backups", "registry-schedule-backups"),
        ("registry-schedule-backups", "server-run-checks"),
        ("server-prepare-gitlab", "runner-configure-runner"),
        ("runner-install-runner", "runner-configure-runner"),
        ("runner-install-docker", "runner-refuse-containers"),
        ("runner-refuse-containers", "runner-install-runner"),
        ("runner-configure-runner", "server-run-checks"),
        ("server-run-checks", "runner-run-checks"),
        ("runner-run-checks", "registry-run-checks"),
        ("registry-run-checks", "server-run-pipeline"),
        ("server-run-pipeline", "registry-find-image"),
    ],
)
def test_a_step_waits_for_the_one_it_needs(graph, earlier, later):
    assert graph.comes_after(graph.step(later), graph.step(earlier))


def test_every_example_of_what_a_step_prints_is_of_a_step(graph):
    assert set(engine.STEP_RESULTS) <= {step.name.split("-", 1)[1] for step in graph.of_type("command:remote:Command")}


def test_a_new_token_key_reaches_the_registry_that_trusts_it_and_gitlab_that_signs_with_it(graph, monkeypatch):
    rotated = engine.CERTIFICATE.replace("token key", "next token key")
    monkeypatch.setitem(engine.STEP_RESULTS, "make-token-key", rotated)
    changed = run_program(dev_config())
    assert payload(changed, "registry-run-registry")[1] == rotated
    for step in ("server-configure-gitlab", *CHECK_STEPS, "registry-find-image"):
        assert changed.step(step).inputs["triggers"] != graph.step(step).inputs["triggers"], step


def test_steps_that_change_nothing_are_ended_at_their_limit_and_what_may_migrate_a_database_has_hours(graph):
    ended = {command.name for command in graph.of_type(COMMAND) if "run-step --end " in command.inputs["create"]}
    assert ended == {*CHECK_STEPS, "registry-find-image"}
    for step in ("server-install-gitlab", "server-configure-gitlab"):
        assert f"run-step {6 * 3600} " in graph.step(step).inputs["create"]


def test_a_step_that_waits_for_jobs_has_more_time_than_it_waits(graph):
    waiting = {path.stem for path in REMOTE.glob("*.sh") if "/finish-jobs 30m --abort" in path.read_text()}
    assert waiting == {"install_docker", "install_runner", "trust_authority"}
    for step in waiting:
        assert f"run-step {2 * 3600} " in graph.step(f"runner-{step.replace('_', '-')}").inputs["create"]


def test_a_volume_that_comes_late_is_mounted_by_its_own_name(graph):
    for machine, rest in (
        ("server", "gitlab-runsvdir /srv/gitlab /var/opt/gitlab /etc/gitlab /var/log/gitlab"),
        ("registry", "docker /srv/registry"),
    ):
        installed, unit = payload(graph, f"{machine}-mount-data")
        assert installed == program("keep-data-mounted")
        device = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{machine}data-id"
        assert f"ExecStart=/usr/local/sbin/keep-data-mounted {device} {rest}\n" in unit
        assert f" {device} {rest}" in graph.step(f"{machine}-mount-data").inputs["create"]


def test_the_registry_does_not_wait_for_gitlab_to_install(graph):
    assert not graph.comes_after(graph.step("registry-run-registry"), graph.step("server-install-gitlab"))


def test_data_are_mounted_after_the_volume_is_attached_and_before_the_package(graph):
    for machine in ("server", "registry"):
        mount = graph.step(f"{machine}-mount-data")
        assert graph.comes_after(mount, graph.one(ATTACHMENT, f"{machine}-data"))
        assert f"{machine}-data-id" in mount.inputs["create"]
    assert (
        graph.step("server-mount-data")
        .inputs["create"]
        .endswith("/srv/gitlab /var/opt/gitlab /etc/gitlab /var/log/gitlab")
    )


def test_the_checks_are_made_after_the_balancer_and_held_to_what_the_machines_were_told(graph):
    for listener in graph.of_type(LISTENER):
        assert graph.comes_after(graph.step("server-run-checks"), listener)
    text, task = payload_bytes(graph, "runner-run-checks")
    assert text == build_zipapp(PROGRAMS / "acceptance_checks")
    assert json.loads(task)["endpoints"]["git_ssh_host_key"] == GIT_HOST_KEY
    assert [check["id"] for check in json.loads(task)["checks"]] == [
        check.id for check in checks.checks_from(Place.RUNNER)
    ]


def test_the_steps_of_the_checks_keep_the_resources_of_the_name_before(graph):
    for place in MACHINES:
        [alias] = graph.step(f"{place}-run-checks").request.aliases
        assert alias.spec.name == f"{place}-walk-hops"
    for step in ("server-run-pipeline", "registry-find-image"):
        assert not graph.step(step).request.aliases


def test_the_inspection_has_the_shape_that_a_doctor_of_another_version_reads(graph):
    inspection = graph.outputs["inspection"]
    assert set(inspection) == {
        *("stack", "user", "publicKey", "privateKey", "machines"),
        *("acceptanceImage", "acceptanceTags", "gitlabVersion", "securityUpdates"),
        "backup",
    }
    assert set(inspection["stack"]) == {
        *("external_url", "host", "balancer_address", "registry_private_address", "web_port", "registry_port"),
        *("git_ssh_host_key", "runner_name", "project"),
    }


def test_the_pipeline_is_told_what_the_registry_is_and_the_registrys_machine_what_was_pushed(graph):
    _, task, go = payload_bytes(graph, "server-run-pipeline")
    assert set(json.loads(task)["files"]) == {".gitlab-ci.yml", "README.md", "pull.sh", "push.sh", "registry.sh"}
    assert json.loads(go) == {"facts": {"issuer": "of the registry"}}
    assert graph.step("registry-find-image").inputs["create"].endswith(f" find_image {IMAGE} {DIGEST}")


def test_without_the_pipeline_the_checks_before_it_are_made_all_the_same(reduced_graph):
    names = {command.name for command in reduced_graph.of_type(COMMAND)}
    assert {"server-run-checks", "runner-run-checks"} <= names
    assert not names & {"registry-run-checks", "server-run-pipeline", "registry-find-image"}
    assert reduced_graph.outputs["inspection"]["acceptanceImage"] is None


def test_jobs_run_in_the_image_of_the_settings(other_graph):
    task = json.loads(payload_bytes(other_graph, "server-run-pipeline")[1])
    document = yaml.safe_load(task["files"][".gitlab-ci.yml"])
    assert document["default"]["image"]["name"] == "registry.example.com/curl:1"


def test_the_acceptance_runs_in_an_image_that_nobody_can_exchange():
    image = acceptance_project.DEFAULT_IMAGE
    assert re.fullmatch(r"docker\.io/curlimages/curl:[\d.]+@sha256:[0-9a-f]{64}", image)
    assert engine.PROJECT["config"]["acceptanceImage"]["default"] == image
    assert image in (engine.ROOT / "acceptance/.gitlab-ci.yml").read_text()


def test_the_registry_runs_from_the_image_of_the_settings_or_else_from_gitlabs_own(graph, other_graph):
    own = "registry.gitlab.com/gitlab-org/build/cng/gitlab-container-registry:v4.15.2-gitlab"
    assert graph.step("registry-run-registry").inputs["create"].endswith(f" run_registry {own} 5000")
    mirrored = other_graph.step("registry-run-registry").inputs["create"]
    assert mirrored.endswith(f" run_registry {OTHER_REGISTRY_IMAGE} 5050")


def test_the_registrys_machine_gets_registry_tree_as_it_is_here(graph):
    assert payload_bytes(graph, "registry-install-registry-tree") == [build_zipapp(PROGRAMS / "registry_tree")]


def test_garbage_is_collected_when_the_settings_say_so_and_by_hand_alone_otherwise(graph, tls_graph, other_graph):
    def schedule(graph: Graph, port: int = 5000) -> tuple[str, str]:
        """The calendar, and the command that runs then."""
        command = shlex.split(graph.step("registry-schedule-garbage-collection").inputs["create"])
        installed, service, timer = payload(graph, "registry-schedule-garbage-collection")
        step, name, unit, calendar, setting = command[-5:]
        assert (step, name, unit) == ("schedule_garbage_collection", "collect-garbage", "collect-garbage")
        assert setting == "registryGarbageCollection"
        assert installed == program("collect-garbage")
        assert f"OnCalendar={calendar}\n" in timer
        [started] = re.findall("^ExecStart=(.*)$", service, re.MULTILINE)
        [finished] = re.findall("^ExecStopPost=(.*)$", service, re.MULTILINE)
        assert finished == f"/usr/local/sbin/collect-garbage finish {port}"
        return calendar, started.removeprefix("/usr/local/sbin/collect-garbage ")

    assert schedule(graph) == ("", "collect 5000")
    assert schedule(tls_graph) == ("Sun 03:00", "collect 5000")
    assert schedule(other_graph, 5050) == ("Sun 03:00", "collect 5050 -m")


def changed_triggers(before: Graph, after: Graph, step: str) -> int:
    """How many triggers of a step differ."""
    triggers = (graph.step(step).inputs["triggers"] for graph in (before, after))
    return sum(old != new for old, new in zip(*triggers, strict=True))


def test_a_version_on_any_machine_makes_the_proof_run_again(graph, upgraded_graph):
    for step in (*CHECK_STEPS, "registry-find-image"):
        assert changed_triggers(graph, upgraded_graph, step) == len(MACHINES), step


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        # The first changes a step of the server, the second one of the runner.
        (
            {
                "gitlabRb": "puma['worker_processes'] = 3",
                "runnerConcurrency": "2",
                "clientCidrs": ["198.51.100.128/25"],
            },
            3,
        ),
        ({"runnerInstanceType": "t3.xlarge"}, 1),
        # All machines, the rules and the listeners.
        ({"registryPort": "5050"}, 5),
    ],
    ids=lambda changes: ", ".join(changes) if isinstance(changes, dict) else None,
)
def test_whatever_the_proof_proves_makes_it_run_again_when_it_changes(graph, changes, number):
    changed = run_program(dev_config(**changes))
    for step in (*CHECK_STEPS, "registry-find-image"):
        assert changed_triggers(graph, changed, step) == number, step


@pytest.mark.parametrize(
    "text",
    ["acceptance_token.rb", "find_image.sh", "acceptance_checks", "run_checks.sh"],
)
def test_a_new_text_of_one_part_of_the_proof_runs_the_whole_proof_again(graph, monkeypatch, text):
    before = acceptance.own_text(build_zipapp(PROGRAMS / "acceptance_checks"))
    for step in (*CHECK_STEPS, "registry-find-image"):
        assert before in graph.step(step).inputs["triggers"]
    monkeypatch.setattr(acceptance, "script", lambda name: script(name) + ("\n# new" if name == text else ""))
    program = build_zipapp(PROGRAMS / "acceptance_checks") + (b"\n# new" if text == "acceptance_checks" else b"")
    assert acceptance.own_text(program) != before


def test_versions_of_the_settings_reach_the_steps_that_install_them(graph):
    assert graph.step("server-install-gitlab").inputs["create"].endswith(" install_gitlab 17.10.4 14 17.8")
    assert " install_runner 17.10.1 172.17.0.0/24 " in graph.step("runner-install-runner").inputs["create"]
    assert "gitlab-container-registry:v4.15.2-gitlab 5000" in graph.step("registry-run-registry").inputs["create"]


def test_every_resource_that_can_have_tags_has_the_settings_tags_and_a_name_of_the_stack(graph):
    untaggable = {
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        ATTACHMENT,
        "aws:iam/rolePolicy:RolePolicy",
        "aws:lb/targetGroupAttachment:TargetGroupAttachment",
        COMMAND,
        STASH,
    }
    for resource in graph.resources:
        if resource.type.startswith("gitlab:") or resource.type in untaggable:
            continue
        assert resource.inputs["tags"]["Project"] == "gitlab", resource.name
        assert resource.inputs["tags"]["Name"].endswith("-test"), resource.name
        assert len(resource.inputs["tags"]) <= 50


def test_whatever_can_have_tags_is_marked_as_the_stacks_and_what_aws_makes_untagged_apart_from_the_rest(graph):
    """Policies allow more for a resource created with the tag than for one that a third party could have tagged."""
    marks = [
        (resource.type, each["gitlab-stack"])
        for resource in graph.resources
        for each in (resource.inputs.get("tags"), resource.inputs.get("rootBlockDevice", {}).get("tags"))
        if each
    ]
    late = {mark for mark in marks if mark[1] != "gitlab/test"}
    assert len(marks) > len(late)
    assert late == {
        ("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", "gitlab/test/default-group"),
        (INSTANCE, "gitlab/test/root-volume"),
    }
    assert [mark for mark in marks if mark == (INSTANCE, "gitlab/test/root-volume")] == 3 * [
        (INSTANCE, "gitlab/test/root-volume")
    ]


def test_no_argument_is_used_that_only_one_generation_of_the_aws_provider_knows(graph, tls_graph):
    for each in (graph, tls_graph):
        for resource in each.resources:
            assert "region" not in resource.inputs
            assert "primaryNetworkInterface" not in resource.inputs


def test_names_of_balancer_and_target_groups_leave_room_for_a_suffix_within_32_characters(graph):
    for resource in [*graph.of_type("aws:lb/loadBalancer:LoadBalancer"), *graph.of_type(TARGET_GROUP)]:
        assert "name" not in resource.inputs
        assert len(resource.name) + 8 <= 32


def test_everything_lies_in_the_one_zone(graph):
    [subnet] = graph.of_type("aws:ec2/subnet:Subnet")
    [balancer] = graph.of_type("aws:lb/loadBalancer:LoadBalancer")
    assert subnet.inputs["availabilityZone"] == "eu-central-1a"
    assert [mapping["subnetId"] for mapping in balancer.inputs["subnetMappings"]] == ["gitlab-id"]
    assert {interface.inputs["subnetId"] for interface in graph.of_type(INTERFACE)} == {"gitlab-id"}
    assert {volume.inputs["availabilityZone"] for volume in graph.of_type(VOLUME)} == {"eu-central-1a"}


def test_what_another_stack_left_is_taken_over_whatever_it_is_called(other_graph):
    for registered, kept in (
        (other_graph.one(VOLUME, "server-data"), "vol-0123456789abcdef1"),
        (other_graph.one(VOLUME, "registry-data"), "vol-0123456789abcdef2"),
        (other_graph.one(EIP, "gitlab-balancer"), "eipalloc-0123456789abcdef0"),
    ):
        assert registered.request.importId == kept
        assert "tags" in registered.request.ignoreChanges
        assert registered.request.protect


def test_nothing_is_taken_over_unless_it_is_named(graph):
    assert not [resource.name for resource in graph.resources if resource.request.importId]


def test_what_is_kept_when_the_stack_goes_keeps_nothing_else_alive(graph):
    kept = [graph.one(VOLUME, "server-data"), graph.one(VOLUME, "registry-data"), graph.one(EIP, "gitlab-balancer")]
    for resource in graph.resources:
        if not resource.type.startswith("gitlab:"):
            assert not [each.name for each in kept if graph.comes_after(each, resource)], resource.name


@pytest.mark.parametrize(
    ("settings", "existing", "message"),
    [
        ({"amiId": "ami-0fedcba9876543210"}, {"architecture": "arm64"}, "amiId: .* is for arm64"),
        (KEPT, {"availabilityZone": "eu-central-1b"}, "serverDataVolumeId: .* is in eu-central-1b"),
        (KEPT, {"encrypted": False}, "registryDataVolumeId: .* is not an encrypted gp3 volume"),
        (KEPT, {"volumeType": "gp2"}, "registryDataVolumeId: .* is not an encrypted gp3 volume"),
        (KEPT, {"size": 200}, "serverDataVolumeSize: 100 GiB, but .* has 200"),
    ],
    ids=["image for Arm", "other zone", "not encrypted", "other type", "larger"],
)
def test_what_exists_and_does_not_fit_is_refused_before_anything_is_made(settings, existing, message):
    with pytest.raises(pulumi.RunError, match=message):
        run_program(dev_config(**settings), existing=existing)


def test_what_does_not_exist_is_refused_by_the_key_that_names_it(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", shown.append)
    with pytest.raises(LookupError):
        run_program(dev_config(amiId="ami-0fedcba9876543210", **KEPT), existing=None)
    keys = ("amiId", "serverDataVolumeId", "registryDataVolumeId", "balancerAddressId")
    assert [message.split(":")[0] for message in shown] == list(keys)
