"""The drill: a restored copy that is silenced before anything in it can act."""

import itertools
import json
import os
import subprocess
import tomllib

import pulumi
import pytest

from configuration.gitlab_rb import GITLAB_USERS, NO_SIDEKIQ, SYSTEM_ACCOUNTS
from configuration.job_limits import JobLimits
from configuration.remote_step import PROGRAMS, program, script
from configuration.runner_config import render_runner_config
from configuration.systemd_units import restrict_egress_service
from settings import SettingsError
from tests.conftest import own_certificate_config
from tests.engine import BACKUP, Graph, run_program
from tests.shell import run_with_tools
from tests.test_configuration import rendered
from tests.test_program import MACHINES, payload, public_ip
from tests.test_settings import load, load_from

SERVER, REGISTRY = BACKUP
DOMAIN = "git.example.com"
ADMINISTRATORS = ["198.51.100.7/32"]
STEPS = ["server-restrict-egress", "server-configure-gitlab-quietly", "server-silence-gitlab"]
OUTSIDE = "198.51.100.9"


def drill_config(**changes):
    """A drill, with the certificate of an own authority."""
    return own_certificate_config(
        **{
            "drill": True,
            "serverDataSnapshotId": SERVER,
            "registryDataSnapshotId": REGISTRY,
            "adminCidrs": ADMINISTRATORS,
            "clientCidrs": ADMINISTRATORS,
            "backup": False,
            "deletionProtection": False,
        }
        | changes
    )


@pytest.fixture(scope="module")
def drilled() -> Graph:
    return run_program(drill_config())


# --- the settings -----------------------------------------------------------------------------------------

NO_CERTIFICATE = {"certificatePem": None, "certificateKeyPem": None, "certificateAuthority": None}


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        ("serverDataSnapshotId", {"serverDataSnapshotId": None}, "missing, but the other machine's snapshot is set"),
        (
            "serverDataSnapshotId",
            {"serverDataSnapshotId": None, "registryDataSnapshotId": None},
            "missing, as registryDataSnapshotId is, but drill is true",
        ),
        ("certificatePem", NO_CERTIFICATE, "missing, but drill is true"),
        ("certificateAuthority", NO_CERTIFICATE, "by an authority that is made for the drill"),
        ("certificateAuthority", {"certificateAuthority": None}, "missing, but drill is true"),
        ("domain", {"domain": None}, "missing, but certificatePem is set"),
        ("hostedZoneId", {"hostedZoneId": "Z0123456789ABC"}, "no DNS record may lead to a copy"),
        ("smtpAddress", {"smtpAddress": "mail.example.com", "emailFrom": "g@example.com"}, "must not send mail"),
        ("clientCidrs", {"clientCidrs": ["198.51.100.0/24"]}, "only administrators may reach a copy"),
        ("backup", {"backup": True}, "a copy needs no backups"),
        ("deletionProtection", {"deletionProtection": True}, "destroyed with its volumes"),
        ("drill", {"drill": "silently"}, "neither true nor false"),
    ],
)
def test_what_would_make_a_drill_act_on_the_original_is_refused(key, changes, reason):
    with pytest.raises(SettingsError) as refusal:
        load_from(drill_config(**changes))
    [line] = [line for line in str(refusal.value).splitlines() if line.startswith(f"- {key}:")]
    assert reason in line


def test_the_order_of_the_networks_does_not_matter():
    networks = ["198.51.100.7/32", "203.0.113.0/24"]
    assert load_from(drill_config(adminCidrs=networks, clientCidrs=networks[::-1])).drill


def test_every_up_of_a_drill_says_what_it_is_and_does_not_ask_for_backups(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", shown.append)
    run_program(drill_config(), only_checks=True)
    assert [text for text in shown if text.startswith("drill: true, so this stack is a silenced copy of a backup")]
    assert not [text for text in shown if text.startswith("backup:")]


# --- the steps --------------------------------------------------------------------------------------------


def test_nothing_of_a_drill_is_in_another_stack(graph, tls_graph, own_graph):
    for other in (graph, tls_graph, own_graph):
        names = {step.name for step in other.of_type("command:remote:Command")}
        assert names.isdisjoint([*STEPS, *(f"{role}-name-load-balancer" for role in MACHINES)])
        assert not [text for text in payload(other, "server-configure-gitlab") if NO_SIDEKIQ in text]
        assert "extra_hosts" not in payload(other, "runner-configure-runner")[0]
        assert " instance_type" in other.step("server-prepare-gitlab").inputs["create"]


def test_the_copy_is_silenced_between_two_configurations_and_cut_off_before_it_is_installed(drilled):
    order = [
        *("server-mount-data", "server-grow-data", "server-clean-restored-data", "server-restrict-egress"),
        *("server-make-token-key", "server-trust-authority", "server-install-gitlab"),
        *("server-configure-gitlab-quietly", "server-silence-gitlab", "server-configure-gitlab"),
        *("server-prepare-gitlab", "runner-configure-runner"),
    ]
    for earlier, later in itertools.pairwise(order):
        assert drilled.comes_after(drilled.step(later), drilled.step(earlier)), f"{later} does not wait for {earlier}"


def test_only_the_first_configuration_is_without_sidekiq(drilled):
    quiet, loud = (payload(drilled, f"server-configure-gitlab{name}")[0] for name in ("-quietly", ""))
    assert quiet.splitlines()[-2:] == ["# Until this restored copy is silenced.", NO_SIDEKIQ]
    assert quiet[: quiet.index("# Until this restored")].rstrip() == loud.rstrip()
    settings = load_from(drill_config())
    assert NO_SIDEKIQ in rendered(settings, background_jobs=False)
    assert NO_SIDEKIQ not in rendered(settings)


def test_the_runner_is_of_the_acceptances_project_and_made_anew_when_the_copy_is_silenced_again(drilled):
    prepared = drilled.step("server-prepare-gitlab").inputs
    assert " project_type" in prepared["create"]
    assert prepared["triggers"][-1] == "silence-gitlab done"


@pytest.mark.parametrize("role", MACHINES)
def test_every_machine_knows_the_load_balancer_by_the_domain_before_it_does_anything_else(drilled, role):
    named = drilled.step(f"{role}-name-load-balancer")
    assert named.inputs["create"].endswith(f" {public_ip(drilled, 'balancer')} {DOMAIN}")
    earlier = {f"{role}-{step}" for step in ("host-key", "prepare-host", "grow-root", "name-load-balancer")}
    for step in drilled.of_type("command:remote:Command"):
        if step.name.startswith(f"{role}-") and step.name not in earlier:
            assert drilled.comes_after(step, named), step.name


def test_jobs_know_it_too(drilled):
    [runner] = tomllib.loads(payload(drilled, "runner-configure-runner")[0])["runners"]
    assert runner["docker"]["extra_hosts"] == [f"{DOMAIN}:{public_ip(drilled, 'balancer')}"]
    limits = JobLimits(memory=1024, cpus=1)
    text = render_runner_config(load(), name="n", limits=limits, external_url="http://x", token="t")
    assert "extra_hosts" not in tomllib.loads(text)["runners"][0]["docker"]


def test_nobody_is_asked_for_a_record_of_its_domain(drilled, own_graph):
    assert drilled.outputs["dnsRecords"] == []
    assert drilled.shown == []
    assert own_graph.outputs["dnsRecords"]
    assert own_graph.shown


# --- the name of the load balancer ------------------------------------------------------------------------


def test_a_repeated_step_replaces_the_name_and_keeps_the_other_lines(tmp_path):
    (tmp_path / "etc").mkdir()
    hosts = tmp_path / "etc/hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    number = hosts.stat().st_ino
    text = script("name_load_balancer.sh").replace("/etc/", f"{tmp_path}/etc/")
    for address in ("203.0.113.9", "203.0.113.10", "203.0.113.10"):
        done = run_with_tools(
            text, "name_load_balancer", [address, DOMAIN], [], tools=tmp_path, result=f"{tmp_path}/result"
        )
        assert done.returncode == 0, done.stderr
    assert hosts.read_text() == (
        f"127.0.0.1 localhost\n::1 localhost\n203.0.113.10 {DOMAIN} # load balancer of gitlab-stack\n"
    )
    assert hosts.stat().st_ino == number, "a container's file is a mount, which cannot be replaced"


# --- what GitLab's users reach ----------------------------------------------------------------------------

NETWORK = """\
set -euo pipefail
mount -t tmpfs tmpfs /run
ip link set lo up
ip netns add aws
ip link add eth0 type veth peer name eth0 netns aws
# The first request for a neighbour's address is lost while the network is not up yet; the next one follows after 20 ms,
# instead of 1000.
echo 20 >/proc/sys/net/ipv6/neigh/eth0/retrans_time_ms
ip address add 10.42.0.20/20 dev eth0
ip address add 2001:db8::20/64 dev eth0 nodad
ip link set eth0 up
for address in 10.42.0.1/20 203.0.113.9/32 198.51.100.9/32; do ip -n aws address add $address dev eth0; done
ip -n aws address add 2001:db8::1/64 dev eth0 nodad
ip -n aws link set eth0 up
ip route add default via 10.42.0.1
ask='import encodings.idna, os, socket, sys
for line in sys.stdin:
    label, _, request = line.partition("|")
    user, address, port, *source = request.split()
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    os.setuid(int(user))
    try:
        socket.create_connection((address, int(port)), 0.5, (source[0], 0) if source else None).close()
        answer = "reached"
    except OSError as error:
        answer = error.strerror or error
    print(f"{label}: {answer}", flush=True)
    os._exit(0)'
serve='import os, socket, sys
os.setuid(int(sys.argv[1]))
server = socket.create_server(("::", int(sys.argv[2])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
while True:
    server.accept()[0].close()'
ip netns exec aws python3 -c "$serve" 0 80 &
servers=$!
for port in 2222 8080; do
    python3 -c "$serve" 440 $port &
    servers="$servers $!"
done
trap 'kill $servers' EXIT
reached() { [[ $(python3 -c "$ask" <<<"root|0 $*") = *reached ]]; }
for listening in "198.51.100.9 80" "2001:db8::1 80" "127.0.0.1 2222" "127.0.0.1 8080"; do
    until reached $listening; do sleep 0.02; done
done
look() {
    {
        for user in 0 440 444; do
            for address in 198.51.100.9 203.0.113.9 10.42.0.1 2001:db8::1; do
                echo "$user $address|$user $address 80"
            done
        done
        for address in 127.0.0.1 ::1 10.42.0.20; do echo "440 $address|440 $address 2222"; done
    } | python3 -c "$ask"
    for port in 2222 8080; do echo "client $port|0 10.42.0.20 $port 198.51.100.9"; done |
        ip netns exec aws python3 -c "$ask"
}
look
echo then
bash "$@"
bash "$@"
look
ip rule list | grep -c 440-444
ip rule add from all lookup main priority 50
bash "$@" 2>&1 && echo "not noticed"
exit 0
"""
UNREACHABLE = "Network is unreachable"


@pytest.mark.needs("ip", "unshare", root=True)
def test_gitlabs_users_reach_only_this_stack_and_still_answer_git_over_ssh():
    arguments = [GITLAB_USERS, "10.42.0.0/20", "203.0.113.9", "2222"]
    command = [
        "unshare",
        "--net",
        "--mount",
        "--kill-child",
        "--fork",
        "bash",
        "-c",
        NETWORK,
        "network",
        str(PROGRAMS / "restrict-egress"),
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = done.stdout.split("then\n")
    assert {line.split(": ")[1] for line in before.splitlines()} == {"reached"}, before
    *seen, rules, noticed = after.splitlines()
    denied = [line for line in seen if not line.endswith(": reached")]
    assert denied == [
        f"440 {OUTSIDE}: {UNREACHABLE}",
        f"440 2001:db8::1: {UNREACHABLE}",
        f"444 {OUTSIDE}: {UNREACHABLE}",
        f"444 2001:db8::1: {UNREACHABLE}",
        "client 8080: timed out",
    ]
    assert len(seen) == len(before.splitlines())
    assert rules == "4"
    assert noticed.startswith("another routing rule lets the users 440-444 reach every address")


def test_the_users_are_all_that_the_services_run_as():
    first, last = map(int, GITLAB_USERS.split("-"))
    assert sorted(account.number for account in SYSTEM_ACCOUNTS) == list(range(first, last + 1))


def test_egress_is_restricted_at_once_and_at_every_boot_before_gitlab_starts(drilled, tmp_path):
    address = public_ip(drilled, "balancer")
    arguments = [GITLAB_USERS, "10.42.0.0/20", address, "2222"]
    step = drilled.step("server-restrict-egress")
    assert step.inputs["create"].endswith(" ".join(["", *arguments]))
    parts = [program("restrict-egress"), restrict_egress_service(arguments)]
    assert payload(drilled, "server-restrict-egress") == parts
    for folder in ("usr/local/sbin", "etc/systemd/system", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    for tool in ("ip", "systemctl"):
        (tmp_path / f"bin/{tool}").write_text(f'#!/bin/bash\necho "{tool} $*" >>{tmp_path}/calls\n[ "$1" != route ]\n')
        (tmp_path / f"bin/{tool}").chmod(0o755)
    text = script("install_boot_program.sh").replace("/usr/local/", f"{tmp_path}/usr/local/")
    text = text.replace("/etc/", f"{tmp_path}/etc/")
    done = run_with_tools(
        text,
        "restrict_egress",
        ["restrict-egress", *arguments],
        parts,
        tools=tmp_path / "bin",
        result=f"{tmp_path}/result",
    )
    assert done.returncode == 0, done.stderr
    assert os.access(tmp_path / "usr/local/sbin/restrict-egress", os.X_OK)
    unit = (tmp_path / "etc/systemd/system/restrict-egress.service").read_text()
    assert f"ExecStart=/usr/local/sbin/restrict-egress {' '.join(arguments)}\n" in unit
    assert "Before=network-pre.target gitlab-runsvdir.service\n" in unit
    assert "RequiredBy=gitlab-runsvdir.service\n" in unit
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:2] == ["systemctl daemon-reload", "systemctl enable --quiet restrict-egress"]
    assert calls[-1] == "systemctl start restrict-egress"
    assert "ip -4 rule add uidrange 440-444 unreachable priority 113" in calls


# --- the console ------------------------------------------------------------------------------------------

GITLAB = """\
$log = []
class Records
  def initialize(name, text = '') = (@name, @text = name, text)
  def where(*given) = given.empty? ? self : Records.new(@name, "#{@text} where #{given.first}")
  def not(given) = Records.new(@name, "#{@text} not #{given}")
  def update_all(values) = ($log << [@name, @text.strip, values.except(:finished_at)]).length
  def delete_all = $log << [@name, 'all', 'deleted']
end
def table(name) = Records.new(name)
module Gitlab; module CurrentSettings; def self.update!(values) = $log << ['settings', '', values]; end; end
module Ci
  module HasStatus; AVAILABLE_STATUSES = %w[created pending running success failed canceled skipped manual]; end
end
%i[PipelineSchedule Pipeline PendingBuild RunningBuild Runner].each { |name| Ci.const_set(name, table(name)) }
CommitStatus, Environment = table('CommitStatus'), table('Environment')
class Time; def self.current = now; end
class ApplicationSetting
  def self.current_without_cache = Struct.new(:silent_mode_enabled).new($log.first.last[:silent_mode_enabled])
end
"""


@pytest.mark.needs("ruby")
def test_silent_mode_comes_first_and_schedules_before_the_jobs_that_they_would_create():
    text = GITLAB + script("silence_gitlab.rb") + "\nputs JSON.generate($log)\n"
    done = subprocess.run(["ruby", "-e", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result, log = map(json.loads, done.stdout.splitlines())
    assert result["silentMode"] is True
    assert list(result) == ["silentMode", "schedules", "jobs", "pipelines", "runners", "environments"]
    assert [(name, changed) for name, _, changed in log] == [
        ("settings", {"silent_mode_enabled": True}),
        ("PipelineSchedule", {"active": False}),
        ("CommitStatus", {"status": "canceled"}),
        ("Pipeline", {"status": "canceled"}),
        ("PendingBuild", "deleted"),
        ("RunningBuild", "deleted"),
        ("Runner", {"active": False}),
        ("Environment", {"auto_stop_at": None}),
    ]


CONFIRMED = '{"silentMode":true,"schedules":1,"jobs":2,"pipelines":1,"runners":1,"environments":0}'


@pytest.mark.parametrize(
    ("sidekiq", "printed", "reason"),
    [
        ("fail: sidekiq: unable to change to service directory: file does not exist", CONFIRMED, ""),
        ("down: sidekiq: 3s, normally up", CONFIRMED, ""),
        ("run: sidekiq: (pid 4711) 9s; run: log: (pid 4712) 9s", CONFIRMED, "may already have acted"),
        ("", CONFIRMED.replace("true", "false", 1), "did not confirm Silent Mode"),
        ("", "a warning", "did not confirm Silent Mode"),
    ],
)
def test_a_copy_is_silenced_only_while_sidekiq_is_off_and_only_silent_mode_counts(tmp_path, sidekiq, printed, reason):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool, text in (
        ("gitlab-ctl", f"echo '{sidekiq}'\n[[ '{sidekiq}' = run:* ]]"),
        ("gitlab-rails", f"echo \"$2\" >{tmp_path}/asked\necho 'a warning'\necho '{printed}'"),
    ):
        (tools / tool).write_text(f"#!/bin/bash\n{text}\n")
        (tools / tool).chmod(0o755)
    text = script("silence_gitlab.sh")
    done = run_with_tools(text, "silence_gitlab", [], ["the program"], tools=tools, result=f"{tmp_path}/result")
    assert reason in done.stdout
    assert done.returncode == bool(reason)
    if not reason:
        assert (tmp_path / "result").read_text() == CONFIRMED + "\n"
        assert (tmp_path / "asked").read_text() == "the program\n"


def test_a_drill_without_a_mail_server_accepts_the_lines_of_its_original():
    line = "gitlab_rails['smtp_address'] = 'mail.example.com'"
    assert load_from(drill_config(gitlabRb=line)).extra_gitlab_rb == line
