import dataclasses
import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.cloud import balancers
from lab.cloud.balancers import (
    HEALTHY,
    PRESERVATION,
    STOPPED,
    UNHEALTHY,
    WRONG_ZONE,
    Balancer,
    Balancers,
    Listener,
    Target,
    TargetGroup,
    fixed_health,
    read_health,
    render,
    render_state,
)
from lab.cloud.network import Interface
from lab.cloud.patches import INITIAL

INTERFACE = Interface(
    "eni-00000000000000aaa", "10.42.0.7", "10.42.0.0/24", "10.42.0.0/16", "02:00:00:00:00:01", ("sg-front",)
)
SERVER = Target("i-server", 80, "eu-central-1a", "10.42.0.4")
HTTP = TargetGroup(
    "arn:http",
    "http",
    (SERVER,),
    proxy_protocol=True,
    check_protocol="HTTP",
    check_path="/-/readiness",
    check_codes="200",
    check_interval=10,
    check_timeout=6,
    healthy_after=3,
    unhealthy_after=2,
)
SSH = TargetGroup("arn:ssh", "ssh", (Target("i-server", 2222, "eu-central-1a", "10.42.0.4"),), check_port=2223)
BALANCER = Balancer("front", "eu-central-1a", INTERFACE, (Listener(22, "TCP", SSH), Listener(80, "TCP", HTTP)))


def group(**changes):
    changed = dataclasses.replace(HTTP, **changes)
    return dataclasses.replace(BALANCER, listeners=(Listener(80, "TCP", changed),))


def section(text, title):
    lines = text.splitlines()
    rest = lines[lines.index(title) + 1 :]
    return list(itertools.takewhile(lambda line: line.startswith("  "), rest))


def test_a_frontend_for_each_listener():
    text = render(BALANCER)
    assert "  bind 10.42.0.7:22" in section(text, "frontend 22")
    assert "  default_backend http" in section(text, "frontend 80")


def test_the_target_groups_own_health_check():
    backend = section(render(BALANCER), "backend http")
    assert backend[0] == "  timeout check 6s"
    assert "uri /-/readiness ver HTTP/1.1" in backend[2]
    assert backend[3] == "  http-check expect status 200"
    assert backend[4] == ("  server i-server 10.42.0.4:80 check inter 2s rise 3 fall 2 send-proxy-v2 check-send-proxy")


def test_a_check_of_another_port_by_tcp():
    backend = section(render(BALANCER), "backend ssh")
    assert backend == [
        "  timeout check 10s",
        "  server i-server 10.42.0.4:2222 check inter 2s rise 5 fall 2 port 2223",
    ]


def test_no_traffic_without_a_healthy_target():
    assert "  tcp-request connection reject unless { nbsrv(http) gt 0 }" in section(render(BALANCER), "frontend 80")


@pytest.mark.parametrize("protocol", ["TLS", "UDP", "TCP_UDP"])
def test_what_is_not_modelled_is_closed_and_said(protocol):
    balancer = dataclasses.replace(BALANCER, listeners=(Listener(443, protocol, HTTP),))
    assert "bind" not in render(balancer)
    (note,) = balancer.not_modelled()
    assert f"443/{protocol}" in note and "stays closed" in note


def test_client_address_preservation_does_not_silently_work():
    balancer = group(preserve_client_ip=True)
    assert "server" not in "\n".join(section(render(balancer), "backend http"))
    assert fixed_health(balancer, balancer.groups()[0], SERVER) == PRESERVATION
    assert balancer.not_modelled()


def test_targets_that_no_check_is_needed_for():
    away = dataclasses.replace(SERVER, zone="eu-central-1b")
    stopped = dataclasses.replace(SERVER, address=None)
    assert fixed_health(BALANCER, HTTP, away) == WRONG_ZONE
    assert fixed_health(BALANCER, HTTP, stopped) == STOPPED
    assert fixed_health(BALANCER, HTTP, SERVER) is None
    assert "server" not in "\n".join(section(render(group(targets=(away, stopped))), "backend http"))


def test_a_new_target_starts_down_and_a_proven_one_stays_up():
    lines = render_state(BALANCER, {("ssh", "i-server")}).splitlines()
    columns = lines[1].removeprefix("# ").split()
    rows = {row["be_name"]: row for row in (dict(zip(columns, li.split(), strict=True)) for li in lines[2:])}
    assert rows["http"]["srv_op_state"] == "0"
    assert rows["ssh"]["srv_op_state"] == "2"


@pytest.mark.parametrize(
    ("status", "check", "health"),
    [
        ("UP", "L7OK", HEALTHY),
        ("UP 1/2", "L4TOUT", HEALTHY),
        ("DOWN", "INI", INITIAL),
        ("DOWN 1/3", "L7OK", INITIAL),
        ("DOWN", "L7STS", UNHEALTHY),
        ("DOWN", "* L4CON", UNHEALTHY),
    ],
)
def test_health_from_statistics(status, check, health):
    statistics = (
        f"# pxname,svname,status,check_status\n80,FRONTEND,OPEN,\nhttp,i-server,{status},{check}\nhttp,BACKEND,UP,\n"
    )
    assert read_health(statistics) == {("http", "i-server"): health}


def test_once_unhealthy_a_target_is_not_initial_again(monkeypatch, tmp_path):
    answers = iter(["DOWN,L4CON", "DOWN 1/3,L7OK", "UP,L7OK"])
    monkeypatch.setattr(
        balancers, "_ask", lambda *_: f"# pxname,svname,status,check_status\nhttp,i-server,{next(answers)}\n"
    )
    monkeypatch.setattr(Balancers, "_create", lambda *_: None)
    monkeypatch.setattr(Balancers, "_configure", lambda *_: None)
    active: list[str] = []
    made = Balancers(active.append, lambda *_: None)
    states = [made.reconcile(BALANCER)[("arn:http", "i-server")] for _ in range(3)]
    assert states == [UNHEALTHY, UNHEALTHY, HEALTHY]
    assert active[0] == "front"


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy checks its configuration itself")
def test_haproxy_takes_it(tmp_path: Path):
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(render(BALANCER, tmp_path))
    (tmp_path / f"{INTERFACE.device}.state").write_text(render_state(BALANCER, set()))
    subprocess.run(["haproxy", "-c", "-q", "-f", configuration], check=True)
