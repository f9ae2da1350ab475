"""The life of a stack on the lab, from `up` to `destroy`. The tests run in the order they are written."""

import json
import re
import time

import boto3
import pytest

from lab import stack
from lab.workspace import LOGS, STATE
from tests.e2e.conftest import ROLES, lab, must, on

CHECKS = [
    "sign-in page through the balancer",
    "readiness hidden from clients",
    "git over SSH with GitLab's host key",
    "runner verified",
    "registry through the balancer",
    "wrong credential refused",
    "login with a short-lived credential",
    "push of a fresh image",
    "push to another project refused",
    "pull of the same image",
    "image on the data volume",
]

MAKE_IMAGE = "head -c 65536 /dev/urandom > /var/tmp/by-hand && tar -C /var/tmp -c by-hand | docker import - {image}"
MAKE_PROJECT = """
admin = User.admins.active.order(:id).first
Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  group = Group.find_by_full_path('gitlab-stack')
  made = Projects::CreateService.new(admin, { name: 'by-hand', path: 'by-hand', namespace_id: group.id,
    visibility_level: Gitlab::VisibilityLevel::PRIVATE }).execute
  abort(made.errors.full_messages.join) unless made.persisted?
end
"""
DELETE_PROJECT = """
admin = User.admins.active.order(:id).first
Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  Projects::DestroyService.new(Project.find_by_full_path('gitlab-stack/by-hand'), admin).execute
end
"""


def image(outputs, project="by-hand"):
    return f"{outputs['registryHost']}/gitlab-stack/{project}/image:1"


def client(service):
    return boto3.client(
        service,
        endpoint_url=stack.API,
        region_name="us-east-1",
        aws_access_key_id="lab",
        aws_secret_access_key="lab",
    )


def instances():
    reservations = client("ec2").describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    )["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def test_up_ends_with_the_proof(outputs):
    assert [check["check"] for check in outputs["acceptance"]] == CHECKS
    assert all(check["seconds"] >= 0 for check in outputs["acceptance"])


def test_a_second_up_changes_nothing_and_takes_less_than_a_minute(outputs):
    again = lab("up")
    assert again.status == 0, again.output
    assert again.seconds < 60
    assert re.search(r"Resources:\s+\d+ unchanged", again.output), again.output


def test_a_preview_with_refresh_finds_nothing_to_change(outputs):
    stack.preview(refresh=True, expect_no_changes=True)


def test_the_addresses_in_the_outputs_are_the_machines_own(outputs):
    for role in ROLES:
        assert outputs["privateAddresses"][role] in must(role, "ip -4 -o address show eth0")


def test_a_person_pushes_and_pulls_through_the_balancer_with_the_initial_root_password(outputs):
    must("server", "gitlab-rails runner -", input=MAKE_PROJECT)
    login = f"docker login --username root --password-stdin {outputs['registryHost']}"
    refused = on("runner", login, input="not-the-password\n")
    assert refused.status != 0
    assert re.search("denied|unauthorized", refused.output, re.IGNORECASE)

    must("runner", login, input=outputs["initialRootPassword"] + "\n")
    must("runner", MAKE_IMAGE.format(image=image(outputs)))
    must("runner", f"docker push {image(outputs)}")
    must("runner", f"docker image rm {image(outputs)}")
    must("runner", f"docker pull {image(outputs)}")


def test_a_push_to_a_path_without_a_project_is_denied(outputs):
    other = image(outputs, project="nobodys")
    must("runner", f"docker tag {image(outputs)} {other}")
    denied = on("runner", f"docker push {other}")
    assert denied.status != 0
    assert "denied" in denied.output


def test_the_push_survives_a_reboot_of_the_registrys_machine(outputs):
    instance_id = outputs["instanceIds"]["registry"]
    booted = must("registry", "ps -o lstart= 1")
    client("ec2").reboot_instances(InstanceIds=[instance_id])
    deadline = time.monotonic() + 120
    while (again := on("registry", "ps -o lstart= 1")).status != 0 or again.output.strip() == booted:
        assert time.monotonic() < deadline, "the registry's machine did not come back within two minutes"
        time.sleep(1)
    must("runner", f"docker image rm {image(outputs)}")
    while (pulled := on("runner", f"docker pull {image(outputs)}")).status != 0:
        assert time.monotonic() < deadline, pulled.output
        time.sleep(2)


def test_a_push_is_denied_once_its_project_is_gone(outputs):
    must("server", "gitlab-rails runner -", input=DELETE_PROJECT)
    must("runner", MAKE_IMAGE.format(image=image(outputs)))
    denied = on("runner", f"docker push {image(outputs)}")
    assert denied.status != 0
    assert "denied" in denied.output
    must("runner", f"docker logout {outputs['registryHost']}")


def test_no_secret_lies_about_in_clear(outputs):
    secrets = {
        "initial root password": outputs["initialRootPassword"],
        "private key of the administrators": stack.PRIVATE_KEY.read_text().splitlines()[-2],
        "runner token": must("runner", r"sed -n 's/^ *token = \"\(.*\)\"/\1/p' /etc/gitlab-runner/config.toml"),
        "private key of the tokens": must("server", "sed -n 2p /etc/gitlab/registry-token.key"),
        "http secret of the registry": must("registry", "cut -d = -f 2 /srv/registry/http-secret.env"),
    }
    assert all(len(secret) >= 20 for secret in secrets.values()), "a secret to look for was not found"
    found = []
    assert list(LOGS.glob("engine-events-*-up.jsonl")), "the engine wrote no event log"
    files = [path for path in [*(STATE / "state").rglob("*"), *LOGS.rglob("*")] if path.is_file()]
    for name, secret in secrets.items():
        found += [f"{name} in {path}" for path in files if secret.encode() in path.read_bytes()]
        for role in ROLES:
            look = (
                "cat >/run/needle; grep -rlFf /run/needle /var/log /var/lib/cloud /run/cloud-init 2>/dev/null;"
                " journalctl --no-pager | grep -cFf /run/needle; rm /run/needle"
            )
            answer = on(role, look, input=secret + "\n").output.split()
            found += [f"{name} in {place} of the {role} machine" for place in answer if place != "0"]
    for instance in instances():
        attribute = client("ec2").describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
        user_data = json.dumps(attribute["UserData"])
        found += [f"{name} in user-data" for name, secret in secrets.items() if secret in user_data]
    assert not found


def test_destroy_ends_clean_also_when_a_machine_is_already_gone(outputs):
    client("ec2").terminate_instances(InstanceIds=[outputs["instanceIds"]["runner"]])
    stack.destroy()
    ec2 = client("ec2")
    assert instances() == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_volumes()["Volumes"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert [vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]] == []
    assert client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert client("elbv2").describe_target_groups()["TargetGroups"] == []


@pytest.mark.usefixtures("outputs")
def test_down_leaves_nothing_on_the_machine(leftovers):
    done = lab("down")
    assert done.status == 0, done.output
    assert leftovers() == []
