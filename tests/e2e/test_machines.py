"""Replacement of machines: whichever way is used, no data is lost, and one plain `up` ends with the acceptance."""

import pytest

from configuration.flows import GITLAB_HTTP_PORT
from lab import stack
from tests.e2e import kept
from tests.e2e.operations import (
    ROLES,
    Finished,
    client,
    eventually,
    instance_id,
    instances,
    machine,
    must,
    on,
    repair,
    step,
    target_health,
    up,
)
from tests.e2e.programs import IMPATIENT, Edits, changed_program

OTHER_TYPE = {"server": "m6i.2xlarge", "registry": "t3.medium", "runner": "t3.xlarge"}


@pytest.fixture(scope="module")
def image(outputs) -> str:
    """An image pushed before any machine is replaced."""
    return kept.push("from-before")


def terminate(role: str) -> None:
    ec2, gone = client("ec2"), instance_id(role)
    ec2.terminate_instances(InstanceIds=[gone])
    eventually(lambda: gone not in [instance["InstanceId"] for instance in instances()])


def replace(role: str, way: str) -> Finished:
    match way:
        case "--replace":
            return up("--replace", machine(role))
        case "another type":
            stack.configure(f"{role}InstanceType", OTHER_TYPE[role])
            return up()
        case "terminated":
            terminate(role)
            return up()
    raise ValueError(way)


def replaced(role: str, way: str, image: str) -> float:
    before, old = kept.holdings(), instance_id(role)
    done = replace(role, way)
    assert done.status == 0, done.output
    assert (instance_id(role) == old) == (way == "another type")
    assert "server-run-pipeline" in done.output
    assert len(instances()) == len(ROLES)
    assert kept.holdings() == before
    kept.pull(image)
    return done.seconds


@pytest.mark.long
def test_a6_a9_a_machine_that_goes_after_its_replacement_or_is_told_too_much_at_birth_is_refused(outputs):
    """The first error loses nothing; after the second, the machine is missing until the next `up`."""
    in_wrong_order = {
        "components/virtual_machine.py": [
            (
                "depends_on=list(after),\n                delete_before_replace=True,\n                # AWS",
                "depends_on=list(after),\n                # AWS",
            )
        ]
    }
    too_much = {
        "configuration/user_data.py": [
            ("LARGEST_USER_DATA = 16384", "LARGEST_USER_DATA = 16385"),
            (
                "    return text\n",
                '    return text.ljust(LARGEST_USER_DATA, "#")\n',
            ),
        ]
    }
    before = instance_id("runner")
    with changed_program(in_wrong_order) as program:
        wrong = up("--replace", machine("runner"), program=program)
    assert wrong.status != 0
    assert "InvalidNetworkInterface.InUse" in wrong.output
    assert instance_id("runner") == before
    with changed_program(too_much) as program:
        wrong = up("--replace", machine("runner"), program=program)
    assert wrong.status != 0
    assert "User data is limited to 16384 bytes" in wrong.output
    repair()


def test_a9_changed_user_data_leave_a_machine_alone(outputs):
    before = instance_id("runner")
    with changed_program(
        {"cloud-init/base.yaml": [("touch /var/lib/gitlab-stack", "touch /var/lib/other; touch /var/lib/gitlab-stack")]}
    ) as program:
        assert up(program=program).status == 0
    assert instance_id("runner") == before


@pytest.mark.fault(
    "a machine is replaced on purpose, by `--replace`",
    sees="the machine is unavailable in the meantime",
    heals="the same `up`",
)
@pytest.mark.parametrize(
    "role", ["server", pytest.param("registry", marks=pytest.mark.long), pytest.param("runner", marks=pytest.mark.long)]
)
def test_a_machine_replaced_on_purpose_keeps_everything(role, image, measured):
    measured(replaced(role, "--replace", image), role)


@pytest.mark.fault(
    "a machine gets another instance type",
    sees="the machine is stopped and started by AWS",
    heals="the same `up`",
)
@pytest.mark.long
@pytest.mark.parametrize("role", ["server", "registry", "runner"])
def test_a_machine_of_another_type_keeps_everything(role, image, measured):
    measured(replaced(role, "another type", image), role)


@pytest.mark.fault(
    "a machine is terminated behind Pulumi's back",
    sees="its services do not respond; `up` detects that the machine is missing and recreates it",
    heals="`pulumi up`",
)
@pytest.mark.parametrize(
    "role", [pytest.param("server", marks=pytest.mark.long), pytest.param("registry", marks=pytest.mark.long), "runner"]
)
def test_a_machine_terminated_behind_pulumis_back_keeps_everything(role, image, measured):
    measured(replaced(role, "terminated", image), role)


def stop_and_start(instance: str) -> None:
    ec2 = client("ec2")
    ec2.stop_instances(InstanceIds=[instance])
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})
    ec2.start_instances(InstanceIds=[instance])
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})


def test_a8_stop_and_start_keep_the_addresses(outputs, image):
    before = kept.holdings()
    stop_and_start(instance_id("registry"))
    eventually(lambda: on("registry", "curl -fsS http://127.0.0.1:5000/").status == 0)
    assert kept.holdings() == before
    kept.pull(image)


def with_guest(*arguments: str, more: str = "") -> Edits:
    """The program with one more machine, created with these arguments."""
    lines = ["import pulumi_aws as aws", "from components.machines import image_id", "guest = aws.ec2.Instance("]
    lines += ['    "guest",', "    ami=image_id(settings),", '    instance_type="t3.micro",']
    lines += [f"    {argument}," for argument in arguments]
    lines += [")", more, 'pulumi.export("guest", {"id": guest.id, "address": guest.public_ip})', ""]
    marker = 'pulumi.export("externalUrl", external_url)\n'
    return {"__main__.py": [(marker, "\n".join(lines) + marker)]}


@pytest.mark.long
def test_a8_an_automatic_address_is_another_after_stop_and_start(outputs):
    automatic = with_guest("subnet_id=network.subnet.id", "associate_public_ip_address=True")
    with changed_program(automatic) as program:
        assert up(program=program).status == 0
        before = stack.outputs()["guest"]
        stop_and_start(before["id"])
        assert up(program=program).status == 0
    after = stack.outputs()["guest"]
    assert after["id"] == before["id"]
    assert after["address"] != before["address"]
    repair()


@pytest.mark.long
def test_a20_a_machine_of_a_zone_that_the_balancer_has_not_is_not_used(outputs):
    elsewhere = 'subnet_id=aws.ec2.Subnet("elsewhere", vpc_id=network.vpc_id, cidr_block="10.42.64.0/20", '
    elsewhere += 'availability_zone="us-east-1b").id'
    elb = client("elbv2")
    [group] = [found for found in elb.describe_target_groups()["TargetGroups"] if found["Port"] == GITLAB_HTTP_PORT]
    with changed_program(with_guest(elsewhere)) as program:
        done = up(program=program)
        assert done.status == 0, done.output
        guest = [{"Id": stack.outputs()["guest"]["id"]}]
        elb.register_targets(TargetGroupArn=group["TargetGroupArn"], Targets=guest)
        look = {"TargetGroupArn": group["TargetGroupArn"], "Targets": guest}

        def state() -> str:
            [found] = elb.describe_target_health(**look)["TargetHealthDescriptions"]
            return str(found["TargetHealth"]["State"])

        eventually(lambda: state() != "initial", seconds=30)
        found = state()
        elb.deregister_targets(TargetGroupArn=group["TargetGroupArn"], Targets=guest)
    assert found == "unused"
    repair()
    assert target_health(GITLAB_HTTP_PORT) == "healthy"


@pytest.mark.long
def test_a21_a_first_boot_that_needs_the_network_has_none_when_the_address_comes_after_the_launch(outputs):
    ask = "curl -fsS --max-time 5 https://packages.gitlab.com/ -o /dev/null && touch /var/lib/reached"
    # The address is associated after the first boot, even on a slow host.
    waited = 'guest.id.apply(lambda known: (__import__("time").sleep(30), known)[1])'
    late = with_guest(
        "subnet_id=network.subnet.id",
        "vpc_security_group_ids=[groups.ids[Place.RUNNER]]",
        'key_name=aws.ec2.KeyPair("guest", public_key=settings.ssh_public_key).key_name',
        'tags={"Name": "guest-lab"}',
        f"user_data={f'#cloud-config{chr(10)}runcmd: [{ask!r}, touch /var/lib/booted]{chr(10)}'!r}",
        more=f'aws.ec2.Eip("guest", domain="vpc", instance={waited})',
    )
    with changed_program(late) as program:
        done = up(program=program)
        assert done.status == 0, done.output
        eventually(lambda: on("guest", "test -e /var/lib/booted").status == 0)
        assert on("guest", "test -e /var/lib/reached").status != 0
        assert on("guest", ask).status == 0
    repair()


@pytest.mark.long
def test_a15_a22_without_pinned_accounts_a_new_machine_cannot_read_what_the_old_one_wrote(outputs, image):
    """Without restorecon, no file is relabelled either; the lab can only log that."""
    before = kept.holdings()
    assert "restorecon /srv/gitlab" in must("server", "cat /var/log/lab-selinux.log")
    unpinned = {
        "configuration/gitlab_rb.py": [("    for account in SYSTEM_ACCOUNTS:\n", "    for account in ():\n")],
        "remote/mount_data.sh": [('    restorecon "$2"\n', "")],
        "remote/configure_gitlab.sh": [("for _ in {1..60}; do", "for _ in {1..3}; do")],
    }
    with changed_program(unpinned) as program:
        wrong = up("--replace", machine("server"), program=program)
    assert wrong.status != 0
    assert "server-configure-gitlab" in wrong.output
    assert must("server", "cat /var/log/lab-selinux.log 2>/dev/null || true") == ""
    done = up("--replace", machine("server"))
    assert done.status == 0, done.output
    assert "restorecon /srv/gitlab" in must("server", "cat /var/log/lab-selinux.log")
    assert kept.holdings() == before


@pytest.mark.long
def test_a23_a_volume_without_its_secrets_is_not_given_new_ones(outputs, image):
    before, secrets = kept.holdings(), "/etc/gitlab/gitlab-secrets.json"
    must("server", f"mv {secrets} /root/kept-secrets")
    right = up("--replace", step("server-install-gitlab"))
    assert right.status != 0
    assert "gitlab-secrets.json is missing" in right.output
    careless = {"remote/install_gitlab.sh": [("if [ -e /var/opt/gitlab/bootstrapped ] &&", "if false &&")]}
    with changed_program(IMPATIENT, careless) as program:
        wrong = up("--replace", step("server-configure-gitlab"), program=program)
    assert wrong.status != 0
    assert must("server", f"test -s {secrets} && echo recreated") == "recreated"
    must("server", f"mv /root/kept-secrets {secrets}")
    done = up("--replace", step("server-configure-gitlab"))
    assert done.status == 0, done.output
    assert kept.holdings() == before


@pytest.mark.long
def test_the_logs_of_a_machine_from_before_are_moved_to_its_data_volume(outputs, image):
    of_before = {
        "configuration/paths.py": [(', "/etc/gitlab", "/var/log/gitlab")', ', "/etc/gitlab")')],
    }
    with changed_program(of_before) as program:
        done = up("--replace", machine("server"), program=program)
        assert done.status == 0, done.output
    must("server", "rm -r /srv/gitlab/var-log-gitlab")
    assert on("server", "mountpoint -q /var/log/gitlab").status != 0
    before, first = kept.holdings(), must("server", "head -n 1 /var/log/gitlab/nginx/gitlab_access.log")
    repair()
    assert must("server", "head -n 1 /var/log/gitlab/nginx/gitlab_access.log") == first
    assert "[/var-log-gitlab]" in must("server", "findmnt --noheadings --output SOURCE /var/log/gitlab")
    assert must("server", "ls -d /var/log/gitlab*") == "/var/log/gitlab\n/var/log/gitlab-stack"
    assert kept.holdings() == before
    assert must("server", "gitlab-backup create SKIP=artifacts").endswith("removed)")
    done = up("--replace", machine("server"))
    assert done.status == 0, done.output
    assert must("server", "head -n 1 /var/log/gitlab/nginx/gitlab_access.log") == first
