"""Settings that do not match what exists in AWS are rejected, by key, before any resource is created."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
import pulumi
import pytest

from components import certificate
from configuration import red_hat
from tests.conftest import KEPT, dev_config, openssh_pair
from tests.engine import Graph, run_program
from tests.test_settings import load
from validation import ssh_agent

DOMAIN = {"domain": "git.example.com", "hostedZoneId": "Z0123456789ABC"}


def accepted(settings: Mapping[str, Any], existing: Mapping[str, Any]) -> Graph:
    """Run the program until its first resource, which it must reach; has what it asked AWS."""
    graph = run_program(dev_config(**settings), existing=existing, only_checks=True)
    assert graph.resources == []
    return graph


@pytest.fixture
def refused(monkeypatch):
    """Runs the program, which must fail before it registers a resource; returns the lines of its error."""

    def run(settings, existing) -> list[str]:
        registered = []
        monkeypatch.setattr("tests.engine.Registered", lambda *of: registered.append(of))
        with pytest.raises(pulumi.RunError) as refusal:
            run_program(dev_config(**settings), existing=existing)
        assert registered == []
        return [line.removeprefix("- ") for line in str(refusal.value).splitlines()[1:]]

    return run


def test_a_key_that_the_ssh_agent_does_not_hold_is_refused_before_the_first_resource(refused, monkeypatch):
    monkeypatch.setattr(ssh_agent, "problem", lambda key: f"the SSH agent does not hold {key}. Add it with ssh-add.")
    [problem] = refused({"sshPrivateKey": None}, {})
    assert problem == (
        f"sshPublicKey: sshPrivateKey is not set, and the SSH agent does not hold {openssh_pair()[0]}. "
        "Add it with ssh-add."
    )


def test_neither_a_preview_nor_a_stack_with_a_private_key_asks_the_agent(monkeypatch):
    monkeypatch.setattr(ssh_agent, "problem", lambda key: f"{key} was requested")
    accepted({}, {})
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    accepted({"sshPrivateKey": None}, {})


def test_another_network_for_a_stack_that_has_one_is_refused(refused):
    [problem] = refused({"networkCidr": "10.43.0.0/16"}, {"networkCidr": "10.42.0.0/16"})
    assert problem == (
        "networkCidr: '10.43.0.0/16', but the VPC of this stack, vpc-of-gitlab-test, has another CIDR block, which "
        "cannot be changed. Set that one (aws ec2 describe-vpcs --region eu-central-1 --vpc-ids vpc-of-gitlab-test "
        "--query 'Vpcs[].CidrBlock'), or first destroy everything but the data and the load balancer's address: pulumi "
        "destroy --exclude-protected."
    )


@pytest.mark.parametrize("existing", [{}, {"networkCidr": "10.43.0.0/16"}], ids=["none", "the same"])
def test_the_network_is_chosen_with_the_first_up(existing):
    accepted({"networkCidr": "10.43.0.0/16"}, existing)


def test_another_zone_for_a_stack_that_has_volumes_is_refused(refused):
    volumes = {"createdFrom": {"server-data-test": None}}
    [problem] = refused({}, {**volumes, "volumesZone": "eu-central-1c"})
    assert problem.startswith(
        "availabilityZone: 'eu-central-1a', but the data volume of this stack, vol-of-server-data-test, is in another "
        "zone. Set that zone, or restore a backup into a new stack"
    )
    accepted({}, volumes)
    accepted({}, {"volumesZone": "eu-central-1c"})


@pytest.mark.parametrize("role", ["server", "registry"])
def test_a_data_volume_of_the_stack_does_not_shrink(refused, role):
    volumes = {"createdFrom": {f"{role}-data-test": None}, "volumeIds": {f"{role}-data-test": "vol-0123456789abcdef0"}}
    [problem] = refused({f"{role}DataVolumeSize": "99"}, volumes)
    assert problem == (
        f"{role}DataVolumeSize: 99 GiB, but 'vol-0123456789abcdef0' has 100 GiB, and a volume cannot shrink. "
        "Set it to 100."
    )
    accepted({f"{role}DataVolumeSize": "101"}, volumes)


ALL_TYPES = {"server": "m6i.xlarge", "registry": "t3.small", "runner": "t3.large"}


def test_a_type_that_the_zone_has_not_is_refused_with_the_command_that_lists_those_it_has(refused):
    [problem] = refused({"serverInstanceType": "m6i.xlage"}, {"offered": ["t3.small", "t3.large"]})
    assert problem.startswith("serverInstanceType: AWS does not offer 'm6i.xlage' in eu-central-1a. ")
    assert "aws ec2 describe-instance-type-offerings --region eu-central-1 " in problem
    assert "Values=eu-central-1a" in problem


def test_a_zone_that_has_none_of_the_types_is_refused(refused):
    [problem] = refused({"availabilityZone": "eu-central-1x"}, {"offered": []})
    assert problem.startswith(
        "availabilityZone: AWS does not offer m6i.xlarge or t3.large or t3.small in 'eu-central-1x'. "
        "Use another zone of the region"
    )
    assert "aws ec2 describe-availability-zones --region eu-central-1)" in problem


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("runnerJobMemory", "9000", "9000 is not between 128 and the 8192 MiB of 't3.large'. Change it, set it to 0"),
        ("runnerJobMemory", "64", "64 is not between 128 and the 8192 MiB of 't3.large'"),
        ("runnerJobCpus", "4", "4, but 't3.large' has 2 vCPUs, and Docker rejects a higher limit. Set it to at most 2"),
    ],
)
def test_a_limit_with_which_no_job_would_start_is_refused(refused, key, value, words):
    [problem] = refused({key: value}, {"memorySize": 8192, "defaultVcpus": 2})
    assert problem.startswith(f"{key}: {words}")


ARM = {"supportedArchitectures": ["arm64"]}
APPLE = {"supportedArchitectures": ["arm64_mac"], "hypervisor": None, "bareMetal": True}
XEN = {"ebsNvmeSupport": "unsupported", "hypervisor": "xen"}
OLD = {**XEN, "supportedArchitectures": ["i386", "x86_64"]}
NOT_NITRO = "is not a Nitro type (hypervisor: xen)"
XEN_WITH_LOCAL_NVME = {"ebsNvmeSupport": "supported", "hypervisor": "xen"}


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("m7g.xlarge", ARM, "is for arm64, but the packages and images are for x86_64"),
        ("mac2.metal", APPLE, "is for arm64_mac, but the packages and images are for x86_64"),
        *[(name, OLD, NOT_NITRO) for name in ("t2.xlarge", "c3.xlarge")],
        *[(name, XEN, NOT_NITRO) for name in ("p2.xlarge", "g3.4xlarge", "x1.16xlarge", "h1.2xlarge", "f1.2xlarge")],
        ("i3.xlarge", XEN_WITH_LOCAL_NVME, NOT_NITRO),
    ],
)
def test_a_type_on_which_the_program_does_not_work_is_refused_whatever_it_is_called(refused, name, found, reason):
    settings = {f"{role}InstanceType": name for role in ALL_TYPES}
    if reason == NOT_NITRO:
        settings["runnerInstanceType"] = ALL_TYPES["runner"]  # it has no data volume
    problems = refused(settings, found)
    wrong = [key for key, value in settings.items() if value == name]
    assert [problem.split(":")[0] for problem in problems] == wrong
    for problem in problems:
        assert f"{name!r} {reason}" in problem
        assert problem.endswith("Use a type such as m6i.xlarge.")


@pytest.mark.parametrize("name", ["t2.large", "t2.medium", "m4.large", "g3.4xlarge", "p2.xlarge", "i3.large"])
def test_a_runner_without_nvme_volumes_is_taken_since_it_has_no_data_volume(refused, name):
    settings = {"runnerInstanceType": name, "registryInstanceType": "t2.small"}
    problems = refused(settings, XEN)
    assert [problem.split(":")[0] for problem in problems] == ["serverInstanceType", "registryInstanceType"]


def test_a_server_with_less_memory_than_gitlab_needs_is_refused_and_other_machines_are_not(refused):
    settings = {"serverInstanceType": "x9.large", "registryInstanceType": "t3.nano"}
    [problem] = refused(settings, {"memorySize": 512})
    assert problem == (
        "serverInstanceType: 'x9.large' has 0.5 GiB of memory, but GitLab needs 8 GiB. Use a type such as m6i.xlarge."
    )
    accepted({}, {"memorySize": 8192})


def test_bare_metal_of_the_nitro_system_is_taken():
    accepted({}, {"hypervisor": None, "bareMetal": True})


def test_there_is_one_look_at_the_zone_and_one_at_each_type_of_machine(graph):
    [offerings] = graph.asked("aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings")
    assert offerings["locationType"] == "availability-zone"
    assert {"name": "location", "values": ["eu-central-1a"]} in offerings["filters"]
    types = sorted(ALL_TYPES.values())
    assert {"name": "instance-type", "values": types} in offerings["filters"]
    assert [each["instanceType"] for each in graph.asked("aws:ec2/getInstanceType:getInstanceType")] == types
    one = accepted({f"{role}InstanceType": "m6i.xlarge" for role in ALL_TYPES}, {})
    assert len(one.asked("aws:ec2/getInstanceType:getInstanceType")) == 1


def test_a_volume_that_another_machine_has_is_refused(refused):
    problems = refused(KEPT, {"holds": "server-other"})
    assert problems[0].startswith(
        "serverDataVolumeId: 'vol-0123456789abcdef1' is attached to i-0123456789abcdef0, which is not this stack's "
        "server-test. First destroy the stack that uses it or detach it"
    )
    assert problems[1].startswith("registryDataVolumeId: 'vol-0123456789abcdef2' is attached to i-0123456789abcdef0")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({}, "is not tagged as belonging to this stack"),
        ({"gitlab-stack": "gitlab/prod"}, "is tagged as belonging to gitlab/prod"),
    ],
)
def test_what_is_not_marked_as_this_stacks_is_refused_with_the_command_that_marks_it(refused, tags, found):
    problems = refused(KEPT, {"tags": tags})
    assert problems == [
        (
            f"{key}: {each!r} {found} (tag gitlab-stack). To let this stack adopt it, tag it: "
            f"aws ec2 create-tags --region eu-central-1 --resources {each} --tags Key=gitlab-stack,Value=gitlab/test"
        )
        for key, each in KEPT.items()
    ]


def test_a_volume_that_this_stack_has_adopted_is_its_own():
    """At the second `up` of a stack, the volume is attached to its own machine."""
    settings = {"serverDataVolumeId": KEPT["serverDataVolumeId"]}
    adopted = accepted(settings, {"holds": "server-test"})
    states = {tuple(each["instanceStateNames"]) for each in adopted.asked("aws:ec2/getInstances:getInstances")}
    assert states == {("pending", "running", "shutting-down", "stopping", "stopped")}


def test_the_registrys_machine_does_not_excuse_the_servers_volume(refused):
    [problem] = refused({"serverDataVolumeId": "vol-0123456789abcdef1"}, {"holds": "registry-test"})
    assert problem.startswith("serverDataVolumeId: 'vol-0123456789abcdef1' is attached")


IN_USE = {"associationId": "eipassoc-0123456789abcdef0"}


@pytest.mark.parametrize(
    "existing",
    [{}, {"network": "gitlab-other"}, {"network": "gitlab-test", "interfaceType": "interface"}],
    ids=["no network of the program", "another stack's", "a machine's"],
)
def test_an_address_that_something_else_has_is_refused(refused, existing):
    settings = {"balancerAddressId": KEPT["balancerAddressId"]}
    [problem] = refused(settings, {**IN_USE, **existing})
    assert problem.startswith(
        "balancerAddressId: 'eipalloc-0123456789abcdef0' (203.0.113.9) is associated with eni-0123456789abcdef0 "
        "('ELB net/gitlab-1234567/0123456789abcdef'), which is not this stack's load balancer. "
        "First destroy the stack that uses it or disassociate it"
    )


def test_an_address_that_this_stack_has_adopted_is_its_own():
    """At the second `up` of a stack, the address belongs to its own load balancer."""
    settings = {"balancerAddressId": KEPT["balancerAddressId"]}
    accepted(settings, {**IN_USE, "network": "gitlab-test"})


def test_a_stack_that_has_data_and_an_address_does_not_exchange_them(refused):
    own = {"createdFrom": {"server-data-test": None}, "addresses": ["eipalloc-own"]}
    problems = refused(KEPT, own)
    assert [problem.split(", which would be deleted in favour of ")[0] for problem in problems] == [
        "serverDataVolumeId: this stack has vol-of-server-data-test already",
        "balancerAddressId: this stack has eipalloc-own already",
    ]
    assert "To go back to a backup, restore into a new stack." in problems[0]
    assert "If it may be released: set deletionProtection to false" in problems[1]


def test_an_address_that_is_not_protected_may_be_exchanged():
    settings = {"balancerAddressId": KEPT["balancerAddressId"], "deletionProtection": "false"}
    accepted(settings, {"addresses": ["eipalloc-own"]})


def test_what_a_stack_of_the_same_name_has_left_is_adopted_by_its_id():
    volumes = {f"{role}-data-test": KEPT[f"{role}DataVolumeId"] for role in ("server", "registry")}
    left = {"createdFrom": volumes, "volumeIds": volumes, "addresses": [KEPT["balancerAddressId"]]}
    accepted(KEPT, left)


def test_nobody_is_asked_who_has_an_address_that_nothing_has():
    free = accepted({"balancerAddressId": KEPT["balancerAddressId"]}, {})
    assert not free.asked("aws:ec2/getNetworkInterface:getNetworkInterface")


@pytest.mark.parametrize("zone", ["git.example.com", "example.com", "com", "example.com."])
def test_a_public_zone_in_which_the_domain_lies_is_taken(zone):
    assert accepted(DOMAIN, {"name": zone}).asked("aws:route53/getZone:getZone")


@pytest.mark.parametrize("zone", ["example.org", "ample.com", "www.git.example.com"])
def test_a_zone_that_does_not_hold_the_domain_is_refused(refused, zone):
    [problem] = refused(DOMAIN, {"name": zone})
    assert problem == (
        f"hostedZoneId: 'Z0123456789ABC' is the zone of {zone}, which does not contain the domain git.example.com. "
        "Use the zone that contains it."
    )


def test_a_private_zone_is_refused(refused):
    [problem] = refused(DOMAIN, {"privateZone": True})
    assert problem.startswith("hostedZoneId: 'Z0123456789ABC' is a private zone")
    assert problem.endswith("Use the public zone of example.com.")


def test_a_zone_that_does_not_exist_is_refused_by_its_key(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", shown.append)
    with pytest.raises(LookupError):
        run_program(dev_config(**DOMAIN), existing=None)
    [problem] = shown
    assert problem.startswith("hostedZoneId: AWS did not find 'Z0123456789ABC' in this account, or denied the request ")
    assert problem.endswith("Leave it empty and create the domain's record yourself.")


SERVED_TLS = {"servedTls": True}
ARN = "arn:aws:acm:eu-central-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
GIVEN = {"domain": "git.example.com", "certificateArn": ARN}


@pytest.mark.parametrize(
    "settings", [{}, {**DOMAIN, "plainHttp": True}], ids=["no domain any more", "plain HTTP for the domain"]
)
def test_a_stack_that_served_tls_does_not_go_back_to_plain_http_by_mistake(refused, settings):
    [problem] = refused(settings, SERVED_TLS)
    assert problem.startswith("acceptPlainHttpAfterTls: false, but this stack serves TLS")
    assert "for two years (HSTS)" in problem
    assert problem.endswith("or set acceptPlainHttpAfterTls to true.")
    accepted(settings, {})
    accepted({**settings, "acceptPlainHttpAfterTls": True}, SERVED_TLS)


def test_a_stack_that_serves_tls_is_not_asked_what_it_served():
    for settings in (DOMAIN, GIVEN):
        asked = accepted(settings, SERVED_TLS).asked("aws:ec2/getSecurityGroups:getSecurityGroups")
        assert not asked


PENDING = f"{ARN!r} has the status PENDING_VALIDATION, and a load balancer accepts"
FOR_OTHERS = f"{ARN!r} is for *.git.example.com, www.example.com, which does not include the domain git.example.com."


@pytest.mark.parametrize(
    ("status", "names", "words"),
    [
        ("PENDING_VALIDATION", {"git.example.com"}, PENDING),
        ("EXPIRED", {"git.example.com"}, f"{ARN!r} has the status EXPIRED"),
        ("ISSUED", {"www.example.com", "*.git.example.com"}, FOR_OTHERS),
        ("ISSUED", {"*.com"}, f"{ARN!r} is for *.com, which does not include"),
    ],
    ids=["not issued yet", "expired", "another name", "two labels above"],
)
def test_a_certificate_that_the_load_balancer_could_not_use_is_refused_by_its_key(status, names, words):
    with pytest.raises(pulumi.RunError) as refusal:
        certificate.checked(load(**GIVEN), ARN, status=status, names=names, key="RSA_2048")
    [problem] = str(refusal.value).splitlines()[1:]
    assert problem.startswith(f"- certificateArn: {words}")
    assert problem.endswith("remove the key: the program then requests one.")


@pytest.mark.parametrize("key", ["RSA-4096", "RSA_4096", "RSA_1024"])
def test_a_certificate_whose_key_load_balancers_do_not_support_is_refused(key):
    with pytest.raises(pulumi.RunError) as refusal:
        certificate.checked(load(**GIVEN), ARN, status="ISSUED", names={"git.example.com"}, key=key)
    [problem] = str(refusal.value).splitlines()[1:]
    assert problem.startswith(
        f"- certificateArn: the key of {ARN!r} is {key}, and a Network Load Balancer supports only"
    )
    assert problem.endswith("remove the setting: the program then requests one.")


def test_a_certificate_that_acm_did_not_take_is_not_passed_over():
    """The provider has it in its state all the same, and imports it no more."""
    wanted = datetime(2027, 3, 1, 12, tzinfo=UTC)
    for until in (None, "2027-03-01T12:00:00Z"):
        assert certificate.in_force(ARN, until=until, wanted=wanted) == ARN
    with pytest.raises(pulumi.RunError, match=r"is valid until 2027-03-01, but the certificate in ACM is another one"):
        certificate.in_force(ARN, until="2026-12-01T12:00:00Z", wanted=wanted)


def test_the_program_refuses_a_certificate_by_all_that_acm_tells_about_it():
    found = {"status": "EXPIRED", "domainName": "www.example.com", "subjectAlternativeNames": None}
    with pytest.raises(pulumi.RunError) as refusal:
        run_program(dev_config(**GIVEN), existing={"certificate": found})
    problems = str(refusal.value).splitlines()[1:]
    assert problems[0].startswith(f"- certificateArn: {ARN!r} has the status EXPIRED")
    assert problems[1].startswith(f"- certificateArn: {ARN!r} is for www.example.com, which does not include")


@pytest.mark.parametrize("name", ["*.example.com", "git.example.com", "GIT.example.com"])
def test_a_certificate_that_covers_the_domain_is_accepted(name):
    assert (
        certificate.checked(load(**GIVEN), ARN, status="ISSUED", names={"www.example.org", name}, key="EC_prime256v1")
        == ARN
    )


def test_a_certificate_that_covers_the_domain_is_used_whatever_its_first_name():
    names = ["www.example.org", "git.example.com"]
    existing = {"certificate": {"domainName": names[0], "subjectAlternativeNames": names}}
    graph = run_program(dev_config(**GIVEN), existing=existing)
    assert graph.reads == [("aws:acm/certificate:Certificate", ARN)]
    assert graph.outputs["dnsRecords"] == [
        {"name": "git.example.com", "type": "A", "value": graph.outputs["publicAddresses"]["balancer"]}
    ]


def test_red_hats_images_are_looked_for_under_its_account_in_the_regions_partition():
    graph = run_program(dev_config(aws__region="cn-north-1", availabilityZone="cn-north-1a"))
    [image] = graph.asked("aws:ec2/getAmi:getAmi")
    assert image["owners"] == ["841258680906"]


@pytest.mark.parametrize(
    ("region", "account"),
    [("mx-central-1", "309956199498"), ("us-gov-west-1", "219670896067"), ("cn-north-1", "841258680906")],
)
def test_each_partition_has_an_account_of_red_hat(region, account):
    assert red_hat.account(region) == account


@pytest.mark.parametrize("region", ["us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "eusc-de-east-1"])
def test_where_red_hats_account_is_not_known_an_image_has_to_be_named(refused, region):
    where = {"aws__region": region, "availabilityZone": f"{region}a"}
    [problem] = refused(where, {})
    assert problem == (
        f"amiId: missing, and Red Hat's AWS account is unknown in {region}, so its images cannot be found. "
        "Set amiId to an x86_64 image of RHEL 8.10."
    )
    accepted({**where, "amiId": "ami-0fedcba9876543210"}, {})


def test_every_partition_of_aws_that_is_known_to_its_sdk_is_told_from_the_others():
    known = {"aws": "309956199498", "aws-cn": "841258680906", "aws-us-gov": "219670896067"}
    sdk = boto3.Session()
    for partition in sdk.get_available_partitions():
        for region in sdk.get_available_regions("ec2", partition_name=partition):
            if partition in known:
                assert red_hat.account(region) == known[partition]
            else:
                with pytest.raises(LookupError):
                    red_hat.account(region)


def test_one_refusal_names_what_is_wrong_with_rules_machines_volumes_and_zone(refused):
    networks = [f"203.0.113.{number}/32" for number in range(19)]
    problems = refused({"clientCidrs": networks, **KEPT, **DOMAIN}, {"memorySize": 512, "size": 999, "name": "x.org"})
    assert [problem.split(":")[0] for problem in problems] == [
        "clientCidrs",
        "serverInstanceType",
        "serverDataVolumeSize",
        "registryDataVolumeSize",
        "hostedZoneId",
    ]
