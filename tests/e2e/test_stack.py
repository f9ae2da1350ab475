"""A stack on the lab after its first `up`. The tests run in the order of this file."""

import json
import re
import shlex
import subprocess
import time

from configuration.checks import CHECKS
from configuration.gitlab_settings import IN_A_NEW_GITLAB
from lab import stack
from tests.e2e import https, people
from tests.e2e.operations import ROLES, client, eventually, lab, must, on, run_product

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


def test_up_ends_with_the_proof(outputs):
    assert outputs["externalUrl"] == "https://git.lab.example.com"
    assert [passed["check"] for passed in outputs["acceptance"]] == [check.title for check in CHECKS]
    assert all(passed["seconds"] >= 0 for passed in outputs["acceptance"])


def test_a_second_up_changes_nothing_and_takes_less_than_a_minute(outputs):
    again = lab("up")
    assert again.status == 0, again.output
    assert again.seconds < 60
    assert re.search(r"Resources:\s+\d+ unchanged", again.output), again.output


def test_a_preview_with_refresh_finds_nothing_to_change(outputs):
    stack.preview(refresh=True, expect_no_changes=True)


def test_no_private_key_of_the_administrators_is_in_state_or_outputs_not_even_encrypted(outputs):
    state = stack.state_in_clear()
    assert stack.PRIVATE_KEY.with_suffix(".pub").read_text().split()[1] in state, "the search does not work"
    assert "PRIVATE KEY" not in state
    for line in stack.PRIVATE_KEY.read_text().splitlines()[1:-1]:
        assert line not in state
    assert "privateKey" not in outputs["inspection"]


def test_the_addresses_in_the_outputs_are_the_machines_own(outputs):
    for role in ROLES:
        assert outputs["privateAddresses"][role] in must(role, "ip -4 -o address show eth0")


def test_roots_first_password_is_read_over_ssh_is_in_no_state_and_opens_nothing_until_it_is_changed(outputs):
    kept = must("server", "cat /etc/gitlab/seeded-root-password")
    shown = run_product(json.dumps(outputs), "root_password.py")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == kept
    exported = stack.export(show_secrets=True)
    assert must("runner", r"sed -n 's/^ *token = \"\(.*\)\"/\1/p' /etc/gitlab-runner/config.toml") in exported
    assert kept not in exported

    login = f"docker login --username root --password-stdin {outputs['registryHost']}"
    assert on("runner", login, stdin=kept + "\n").status != 0
    forget = "systemctl start forget-root-password && cat /etc/gitlab/seeded-root-password"
    assert must("server", forget) == kept, "the file must stay while it is root's password"


def test_a_new_gitlab_has_the_programs_settings_and_the_doctor_shows_them(outputs):
    doctor = run_product(json.dumps(outputs), "doctor.py", "--json")
    assert doctor.returncode == 0, doctor.stderr
    assert json.loads(doctor.stdout)["settings"] == {setting.name: setting.value for setting in IN_A_NEW_GITLAB}


def test_a_person_pushes_and_pulls_through_the_balancer_with_a_password(outputs):
    must("server", "gitlab-rails runner -", stdin=MAKE_PROJECT)
    login = f"docker login --username {people.NAME} --password-stdin {outputs['registryHost']}"
    refused = on("runner", login, stdin="not-the-password\n")
    assert refused.status != 0
    assert re.search("denied|unauthorized", refused.output, re.IGNORECASE)

    people.log_in(outputs)
    must("runner", MAKE_IMAGE.format(image=image(outputs)))
    must("runner", f"docker push {image(outputs)}")
    must("runner", f"docker image rm {image(outputs)}")
    must("runner", f"docker pull {image(outputs)}")


def test_who_fails_to_log_in_too_often_is_shut_out_but_not_the_runner(outputs):
    wrong = f"{outputs['externalUrl']}/jwt/auth?service=container_registry"
    try_often = f"for i in {{1..60}}; do curl -so /dev/null -w '%{{http_code}}\\n' -u unknown:wrong '{wrong}'; done"
    try:
        assert set(must("runner", try_often).split()) == {"401"}
        people.log_in(outputs)
        from_here = try_often.replace("curl ", f"curl {shlex.join(https.curl_options(outputs))} ", 1)
        here = subprocess.run(["bash", "-c", from_here], capture_output=True, text=True, check=True)
        assert set(here.stdout.split()) == {"401", "403"}
    finally:
        must("server", "gitlab-ctl restart puma")
        ready = "curl -fs --unix-socket /var/opt/gitlab/gitlab-workhorse/sockets/socket http://localhost/-/readiness"
        eventually(lambda: on("server", ready).status == 0)


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
    must("server", "gitlab-rails runner -", stdin=DELETE_PROJECT)
    must("runner", MAKE_IMAGE.format(image=image(outputs)))
    denied = on("runner", f"docker push {image(outputs)}")
    assert denied.status != 0
    assert "denied" in denied.output
    must("runner", f"docker logout {outputs['registryHost']}")
