import dataclasses
import itertools
import socket
import subprocess
import time
from pathlib import Path

import pytest

from lab.cloud import balancers
from lab.cloud.balancers import (
    HEALTHY,
    INITIAL,
    STOPPED,
    UNHEALTHY,
    WRONG_ZONE,
    Balancer,
    Balancers,
    Listener,
    Policy,
    Target,
    TargetGroup,
    fixed_health,
    read_health,
    render,
    render_state,
)
from lab.cloud.network import Interface
from lab.tests.played_target import LOCAL, PROXY, PlayedTarget, wait_for

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


POLICY = Policy(("TLSv1.3", "TLSv1.2"), ("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"))


@pytest.mark.parametrize(
    ("listener", "reason"),
    [
        (Listener(443, "UDP", HTTP), "only TCP and TLS are modelled"),
        (Listener(443, "TCP_UDP", HTTP), "only TCP and TLS are modelled"),
        (Listener(443, "TLS", HTTP, policy=None, pem="certificate"), "security policy"),
        (Listener(443, "TLS", HTTP, POLICY, pem=""), "no certificate"),
        (Listener(443, "TLS", None, POLICY, pem="certificate"), "no target group"),
    ],
)
def test_a_listener_that_the_lab_cannot_serve_stays_closed_and_the_log_says_why(listener, reason):
    balancer = dataclasses.replace(BALANCER, listeners=(listener,))
    assert "bind" not in render(balancer)
    assert balancer.groups() == []
    (note,) = balancer.not_modelled()
    assert note.startswith(f"listener 443/{listener.protocol}: ")
    assert reason in note
    assert note.endswith("the port stays closed")


def test_a_tls_listener_has_the_versions_and_ciphers_of_its_policy():
    balancer = dataclasses.replace(BALANCER, listeners=(Listener(443, "TLS", HTTP, POLICY, "certificate"),))
    assert section(render(balancer, Path("/run")), "frontend 443")[0] == (
        "  bind 10.42.0.7:443 ssl crt /run/lab-0000000aaa-443.pem ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.3"
        " ciphersuites TLS_AES_128_GCM_SHA256 ciphers ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=2"
    )
    assert "certificate" not in repr(balancer)  # with its private key


def test_targets_are_called_in_the_clients_names_where_addresses_are_preserved():
    line = section(render(group(preserve_client_ip=True)), "backend http")[-1]
    assert line.endswith(" source 0.0.0.0 usesrc clientip")
    assert "usesrc" not in render(BALANCER)


def test_what_the_network_is_told_of_preserved_addresses():
    assert BALANCER.preserving() is None
    stopped = dataclasses.replace(SERVER, address=None)
    preserving = group(preserve_client_ip=True, targets=(SERVER, stopped)).preserving()
    assert preserving
    assert preserving.targets == ((80, (SERVER.address,)),)


def test_where_there_is_a_proxy_header_a_target_is_called_when_the_client_has_spoken():
    waits = "  tcp-request content accept if { req.len gt 0 }"
    assert waits in section(render(BALANCER), "frontend 80")
    assert waits not in section(render(BALANCER), "frontend 22")


def test_targets_that_no_check_is_needed_for():
    away = dataclasses.replace(SERVER, zone="eu-central-1b")
    stopped = dataclasses.replace(SERVER, address=None)
    assert fixed_health(BALANCER, away) == WRONG_ZONE
    assert fixed_health(BALANCER, stopped) == STOPPED
    assert fixed_health(BALANCER, SERVER) is None
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


@pytest.mark.needs("haproxy")
def test_haproxy_takes_it(tmp_path: Path):
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(render(BALANCER, tmp_path))
    (tmp_path / f"{INTERFACE.device}.state").write_text(render_state(BALANCER, set()))
    subprocess.run(["haproxy", "-c", "-q", "-f", configuration], check=True)


@pytest.fixture
def target():
    target = PlayedTarget()
    yield target
    target.listening.close()


@pytest.fixture
def front(target, tmp_path):
    """The port of a real load balancer on the loopback interface, in front of the target."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    changed = dataclasses.replace(
        HTTP,
        targets=(dataclasses.replace(SERVER, address="127.0.0.1", port=target.port),),
        check_port=target.port,
        check_interval=1,
        healthy_after=1,
    )
    interface = dataclasses.replace(INTERFACE, address="127.0.0.1")
    balancer = dataclasses.replace(BALANCER, interface=interface, listeners=(Listener(port, "TCP", changed),))
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(render(balancer, tmp_path).replace("check inter 1s", "check inter 100ms"))
    (tmp_path / f"{interface.device}.state").write_text(render_state(balancer, set()))
    process = subprocess.Popen(["haproxy", "-db", "-f", configuration], stderr=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


def ask(port):
    """Return the start of the response, and the client's address and port; None if the connection fails."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            host, own_port = connection.getsockname()
            connection.sendall(b"GET /page HTTP/1.1\r\n\r\n")
            answer = connection.recv(12)
            return (answer, f"{host}:{own_port}") if answer else None
    except ConnectionError:
        return None


@pytest.mark.needs("haproxy")
def test_traffic_goes_to_a_healthy_target_alone_and_brings_the_client_with_it(front, target):
    wait_for(lambda: "/-/readiness" in target.seen)
    assert ask(front) is None  # the target is new
    target.becomes(503)
    assert ask(front) is None
    target.becomes(200)
    answer, client = wait_for(lambda: ask(front))
    assert answer == b"HTTP/1.1 200"
    assert target.seen["/page"] == {(PROXY, client)}
    assert target.seen["/-/readiness"] == {(LOCAL, None)}  # a health check also has the header, without a client
    target.becomes(503)
    wait_for(lambda: ask(front) is None)


@pytest.mark.needs("haproxy")
def test_a_target_hears_of_a_client_with_the_clients_first_bytes(front, target):
    target.becomes(200)
    wait_for(lambda: ask(front))
    before = target.clients
    with socket.create_connection(("127.0.0.1", front), timeout=5) as connection:
        time.sleep(0.2)
        assert target.clients == before
        connection.sendall(b"GET /late HTTP/1.1\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    assert target.clients == before + 1
