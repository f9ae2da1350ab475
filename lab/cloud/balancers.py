"""Network load balancers: haproxy in a network namespace, behind the load balancer's own interface.

The load balancer reaches its targets and is reached like any machine, so security groups apply on both sides, also to
health checks. Where client addresses are preserved, haproxy connects to targets with the client's address
(`network.Preserving`). Differences from AWS:

- without a healthy target, connections are refused (AWS sends them to all targets)
- health checks run at least every `CHECK_INTERVAL` seconds, even if the target group's interval is longer
- a client is connected before a target is: if the target refuses, the connection is closed afterwards
- with a PROXY header, a target that speaks first is not heard before the client has sent data
- a target that connects to itself gets no response where addresses are preserved, even if there are other targets
- a TLS listener has no post-quantum key exchange, also with a policy that has it on AWS
- UDP listeners are not modelled: the port stays closed, and the log reports why
"""

import csv
import io
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.cloud import host_network
from lab.cloud.network import DEVICE_PREFIX, NAMESPACE_PREFIX, NAMESPACES, Interface, Preserving
from lab.shell import call
from lab.workspace import RUN, Daemon, LabError, write_secret

CHECK_INTERVAL = 2  # seconds
IDLE_TIMEOUT = 350  # seconds, AWS's for TCP
DRAIN_TIMEOUT = 30  # seconds until connections to a removed target are closed
RELOAD_TIMEOUT = 10.0  # seconds
VERSIONS = {"TLSv1": "TLSv1.0", "TLSv1.1": "TLSv1.1", "TLSv1.2": "TLSv1.2", "TLSv1.3": "TLSv1.3"}
"""AWS's name of a TLS version → haproxy's."""
ALPN = {
    "HTTP1Only": "http/1.1",
    "HTTP2Only": "h2",
    "HTTP2Optional": "http/1.1,h2",
    "HTTP2Preferred": "h2,http/1.1",
    "None": "",
}
"""ALPN policy → protocols in the order of preference (User Guide for Network Load Balancers, ALPN policies)."""


@dataclass(frozen=True)
class TargetHealth:
    """The state of a target as in DescribeTargetHealth: healthy, initial, unhealthy or unused."""

    state: str
    reason: str | None = None
    description: str | None = None


INITIAL = TargetHealth("initial", "Elb.RegistrationInProgress", "Target registration is in progress")
HEALTHY = TargetHealth("healthy")
UNHEALTHY = TargetHealth("unhealthy", "Target.FailedHealthChecks", "Health checks failed")
NOT_IN_USE = TargetHealth(
    "unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"
)
WRONG_ZONE = TargetHealth(
    "unused", "Target.NotInUse", "Target is in an Availability Zone that is not enabled for the load balancer"
)
STOPPED = TargetHealth("unused", "Target.InvalidState", "Target is in the stopped state")


@dataclass(frozen=True)
class Target:
    """A target. `address` is None if it is not a running machine."""

    id: str
    port: int
    zone: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class TargetGroup:
    arn: str
    name: str
    targets: tuple[Target, ...] = ()
    proxy_protocol: bool = False
    preserve_client_ip: bool = False
    check_protocol: str = "TCP"
    check_port: int | None = None  # None: the traffic port
    check_path: str = "/"
    check_codes: str = "200-399"
    check_interval: int = 30  # seconds
    check_timeout: int = 10  # seconds
    healthy_after: int = 5
    unhealthy_after: int = 2


@dataclass(frozen=True)
class Policy:
    """The versions and ciphers of a security policy, named as by AWS: `TLSv1` is TLS 1.0."""

    protocols: tuple[str, ...]
    ciphers: tuple[str, ...]


@dataclass(frozen=True)
class Listener:
    """A listener. A TLS listener has a security policy, and shows the first certificate in `pem`."""

    port: int
    protocol: str
    group: TargetGroup | None
    policy: Policy | None = None
    pem: str = field(default="", repr=False)
    """The certificate, its chain and its private key."""
    alpn_policy: str = "None"
    """A key of `ALPN`."""

    def closed_because(self) -> str | None:
        """Return why the lab does not open the port; None if it does."""
        if self.protocol not in ("TCP", "TLS"):
            return "only TCP and TLS are modelled by the lab"
        if self.group is None:
            return "it has no target group"
        if self.protocol == "TLS" and self.policy is None:
            return "the lab does not know its security policy"
        if self.protocol == "TLS" and not self.pem:
            return "it has no certificate"
        return None


@dataclass(frozen=True)
class Balancer:
    """A network load balancer with one interface; several zones are not modelled."""

    name: str
    zone: str
    interface: Interface
    listeners: tuple[Listener, ...] = ()
    number: int = 0  # among all load balancers

    @property
    def namespace(self) -> str:
        return NAMESPACE_PREFIX + self.name

    def groups(self) -> list[TargetGroup]:
        """Return the target groups of the open listeners, without duplicates."""
        used = {group.arn: group for _, group in self.open()}
        return [used[arn] for arn in sorted(used)]

    def open(self) -> list[tuple[Listener, TargetGroup]]:
        """Return the listeners whose port is open, with their target groups."""
        return [(li, li.group) for li in self.listeners if li.group and not li.closed_because()]

    def not_modelled(self) -> list[str]:
        """Return messages for the log about what AWS would do and the lab does not."""
        return [
            f"listener {li.port}/{li.protocol}: {reason}, the port stays closed"
            for li in self.listeners
            if (reason := li.closed_because())
        ]

    def preserving(self) -> Preserving | None:
        """Return what the network needs if targets see the clients' addresses; None if they do not."""
        targets = tuple(
            (li.port, tuple(str(target.address) for target in _checked(self, group)))
            for li, group in self.open()
            if group.preserve_client_ip
        )
        return Preserving(self.interface, self.number, targets) if targets else None


def fixed_health(balancer: Balancer, target: Target) -> TargetHealth | None:
    """Return the health that the settings alone determine; None if a health check is needed."""
    if target.address is None:
        return STOPPED
    if target.zone not in (None, balancer.zone):
        return WRONG_ZONE
    return None


def render(balancer: Balancer, run: Path = RUN) -> str:
    """Return haproxy's configuration."""
    address, device = balancer.interface.address, balancer.interface.device
    lines = [
        "global",
        f"  stats socket {run / device}.sock mode 600 level admin",
        f"  server-state-file {run / device}.state",
        f"  hard-stop-after {DRAIN_TIMEOUT}s",
        "defaults",
        "  mode tcp",
        "  load-server-state-from-file global",
        "  timeout connect 5s",
        f"  timeout client {IDLE_TIMEOUT}s",
        f"  timeout server {IDLE_TIMEOUT}s",
    ]
    for listener, group in balancer.open():
        lines += [
            f"frontend {listener.port}",
            f"  bind {address}:{listener.port}{_tls(balancer, listener, run)}",
            f"  tcp-request connection reject unless {{ nbsrv({group.name}) gt 0 }}",
        ]
        if group.proxy_protocol:
            # AWS sends the header with the client's first bytes, not before; with TLS, its first decrypted bytes.
            lines += [
                f"  tcp-request inspect-delay {IDLE_TIMEOUT}s",
                "  tcp-request content accept if { req.len gt 0 }",
                "  tcp-request content reject",
            ]
        lines.append(f"  default_backend {group.name}")
    for group in balancer.groups():
        lines += _backend(balancer, group)
    return "\n".join([*lines, ""])


def _tls(balancer: Balancer, listener: Listener, run: Path) -> str:
    """Return the options of `bind` for TLS; none for another listener."""
    if listener.protocol != "TLS" or listener.policy is None:
        return ""
    versions = sorted(VERSIONS[protocol] for protocol in listener.policy.protocols)
    suites = [cipher for cipher in listener.policy.ciphers if cipher.startswith("TLS_")]
    ciphers = [cipher for cipher in listener.policy.ciphers if cipher not in suites]
    options = ["ssl", f"crt {pem_file(balancer, listener, run)}"]
    options += [f"ssl-min-ver {versions[0]}", f"ssl-max-ver {versions[-1]}"]
    if suites:  # of TLS 1.3; OpenSSL has two lists
        options.append(f"ciphersuites {':'.join(suites)}")
    if ciphers:
        # OpenSSL's default level of security excludes TLS 1.0 and 1.1.
        level = "@SECLEVEL=0" if versions[0] < "TLSv1.2" else "@SECLEVEL=2"
        options.append(f"ciphers {':'.join([*ciphers, level])}")
    if protocols := ALPN[listener.alpn_policy]:
        options.append(f"alpn {protocols}")
    return " " + " ".join(options)


def pem_file(balancer: Balancer, listener: Listener, run: Path = RUN) -> Path:
    """Return the file with the certificate that a TLS listener shows, and with its private key."""
    return run / f"{balancer.interface.device}-{listener.port}.pem"


def _backend(balancer: Balancer, group: TargetGroup) -> list[str]:
    lines = [f"backend {group.name}", f"  timeout check {group.check_timeout}s"]
    if group.check_protocol == "HTTP":
        lines += [
            "  option httpchk",
            (
                f"  http-check send meth GET uri {group.check_path} ver HTTP/1.1"
                f" hdr Host {balancer.name} hdr User-Agent ELB-HealthChecker/2.0 hdr Connection close"
            ),
            f"  http-check expect status {group.check_codes}",
        ]
    interval = min(group.check_interval, CHECK_INTERVAL)
    check = f"check inter {interval}s rise {group.healthy_after} fall {group.unhealthy_after}"
    if group.check_port:
        check += f" port {group.check_port}"
    if group.proxy_protocol:
        # As on AWS, the header of a health check contains no client.
        check += " send-proxy-v2 check-send-proxy"
    if group.preserve_client_ip:
        # Health checks have no client.
        check += " source 0.0.0.0 usesrc clientip"
    lines += [f"  server {t.id} {t.address}:{t.port} {check}" for t in _checked(balancer, group)]
    return lines


def _checked(balancer: Balancer, group: TargetGroup) -> list[Target]:
    return [target for target in group.targets if fixed_health(balancer, target) is None]


STATE_COLUMNS = (
    *("be_id", "be_name", "srv_id", "srv_name", "srv_addr", "srv_op_state", "srv_admin_state", "srv_uweight"),
    *(
        "srv_iweight",
        "srv_time_since_last_change",
        "srv_check_status",
        "srv_check_result",
        "srv_check_health",
    ),
    *("srv_check_state", "srv_agent_state", "bk_f_forced_id", "srv_f_forced_id", "srv_fqdn", "srv_port"),
    *("srvrecord", "srv_use_ssl", "srv_check_port", "srv_check_addr", "srv_agent_addr", "srv_agent_port"),
)


def render_state(balancer: Balancer, healthy: set[tuple[str, str]]) -> str:
    """Return haproxy's server state file. Without it, haproxy considers an unchecked server up; on AWS it is not.

    `healthy` has target group name and target id of the targets that were healthy before a reload.
    """
    lines = ["1", "# " + " ".join(STATE_COLUMNS)]
    # The backends' ids are not known here; haproxy uses the name if no backend has be_id.
    for group in balancer.groups():
        for number, target in enumerate(_checked(balancer, group), start=1):
            up = (group.name, target.id) in healthy
            values = dict.fromkeys(STATE_COLUMNS, "0") | {
                "be_id": "0",
                "be_name": group.name,
                "srv_id": str(number),
                "srv_name": target.id,
                "srv_addr": target.address or "-",
                "srv_op_state": "2" if up else "0",
                "srv_uweight": "1",
                "srv_iweight": "1",
                "srv_check_status": "6" if up else "1",
                "srv_check_result": "3" if up else "0",
                "srv_check_health": str(group.healthy_after + group.unhealthy_after - 1) if up else "0",
                "srv_check_state": "6",
                "srv_fqdn": "-",
                "srv_port": str(target.port),
                "srvrecord": "-",
                "srv_check_addr": "-",
                "srv_agent_addr": "-",
            }
            lines.append(" ".join(values[column] for column in STATE_COLUMNS))
    return "\n".join([*lines, ""])


def read_health(statistics: str) -> dict[tuple[str, str], TargetHealth]:
    """Return health by target group name and target id, from haproxy's response to `show stat`."""
    found = {}
    for row in csv.DictReader(io.StringIO(statistics.removeprefix("# "))):
        if row["svname"] not in ("FRONTEND", "BACKEND") and row["check_status"]:
            found[row["pxname"], row["svname"]] = _health(row["status"], row["check_status"])
    return found


def _health(status: str, check: str) -> TargetHealth:
    if status.startswith("UP"):
        return HEALTHY
    # "* L4OK": a check is running, and L4OK was the previous result.
    result = check.removeprefix("* ")
    return INITIAL if result in ("INI", "UNK") or result.endswith("OK") else UNHEALTHY


Health = dict[tuple[str, str], TargetHealth]


class Balancers:
    """Brings namespaces and haproxy processes in line with the API. At most one thread per load balancer.

    `active` is called with the load balancer's name when it is configured, `log` with what the lab does not model.
    """

    def __init__(self, active: Callable[[str], None], log: Callable[[str, str], None]) -> None:
        self._active = active
        self._log = log
        self._known: dict[str, Balancer] = {}
        self._measured: dict[str, Health] = {}

    def reconcile(self, balancer: Balancer) -> Health:
        """Configure the load balancer and return its targets' health by target group ARN and target id."""
        known = self._known.get(balancer.name)
        if known and known.interface.id != balancer.interface.id:
            self.remove(balancer.name)
            known = None
        if known is None:
            self._create(balancer)
        if known != balancer or not daemon(balancer).running():
            self._configure(balancer)
            self._log(f"load balancer {balancer.name}, settings", "; ".join(balancer.not_modelled()))
            self._known[balancer.name] = balancer
            self._active(balancer.name)
        return self._health(balancer)

    def names(self) -> set[str]:
        """Return the names of the load balancers that exist on this machine."""
        return set(self._known)

    def remove(self, name: str) -> None:
        """Remove the load balancer. Idempotent."""
        if balancer := self._known.pop(name, None):
            daemon(balancer).stop()
            call("ip", "netns", "delete", balancer.namespace, check=False)
            self._measured.pop(name, None)
            for file in RUN.glob(f"{balancer.interface.device}[.-]*"):
                file.unlink()

    def _create(self, balancer: Balancer) -> None:
        if not (NAMESPACES / balancer.namespace).exists():
            call("ip", "netns", "add", balancer.namespace)
        host_network.plug_in(balancer.interface, NAMESPACES / balancer.namespace)

    def _configure(self, balancer: Balancer) -> None:
        RUN.mkdir(parents=True, exist_ok=True)
        for listener, _ in balancer.open():
            if listener.protocol == "TLS":
                write_secret(pem_file(balancer, listener, RUN), listener.pem)
        process, known = daemon(balancer), self._known.get(balancer.name)
        if known and process.running() and _same_but_certificates(known, balancer):
            for listener in set(balancer.listeners) - set(known.listeners):
                _replace_certificate(balancer, listener)
            return
        if preserving := balancer.preserving():
            host_network.preserve(preserving, NAMESPACES / balancer.namespace)
        healthy = {key for key, value in self._measured.get(balancer.name, {}).items() if value == HEALTHY}
        configuration = RUN / f"{balancer.interface.device}.cfg"
        (RUN / f"{balancer.interface.device}.state").write_text(render_state(balancer, healthy))
        configuration.write_text(render(balancer, RUN))
        call("haproxy", "-c", "-q", "-f", str(configuration))
        if (pid := process.pid) is None:
            process.start()
        else:
            _reload(pid, _socket(balancer))

    def _health(self, balancer: Balancer) -> Health:
        before = self._measured.get(balancer.name, {})
        try:
            measured = read_health(_ask(_socket(balancer), "show stat"))
        except OSError:  # while it starts
            measured = before
        for key, health in measured.items():
            # The target is recovering: on AWS only a new target is initial.
            if health == INITIAL and before.get(key) == UNHEALTHY:
                measured[key] = UNHEALTHY
        self._measured[balancer.name] = measured
        return {
            (group.arn, target.id): fixed_health(balancer, target) or measured.get((group.name, target.id), INITIAL)
            for group in balancer.groups()
            for target in group.targets
        }


def daemon(balancer: Balancer) -> Daemon:
    """Return the load balancer's haproxy: a master, which reloads its configuration on SIGUSR2, and its workers."""
    configuration = RUN / f"{balancer.interface.device}.cfg"
    command = ["haproxy", "-W", "-db", "-f", str(configuration)]
    return Daemon(f"balancer-{balancer.name}", command, netns=balancer.namespace)


def _socket(balancer: Balancer) -> Path:
    return RUN / f"{balancer.interface.device}.sock"


def _same_but_certificates(one: Balancer, other: Balancer) -> bool:
    return render(one, RUN) == render(other, RUN) and one.preserving() == other.preserving()


def _replace_certificate(balancer: Balancer, listener: Listener) -> None:
    """Show another certificate to new connections. A reload would close the existing ones after `DRAIN_TIMEOUT`."""
    file = pem_file(balancer, listener, RUN)
    lines = [line for line in listener.pem.splitlines() if line.strip()]  # an empty line ends the command
    answer = _ask(_socket(balancer), "\n".join([f"set ssl cert {file} <<", *lines, ""]))
    answer += _ask(_socket(balancer), f"commit ssl cert {file}")
    if "Success!" not in answer:
        raise LabError(f"haproxy does not take the certificate of port {listener.port}: {' '.join(answer.split())}")


def _reload(pid: int, path: Path) -> None:
    """Let the master with this pid start a worker with the new configuration, and wait until it works.

    Until then the socket belongs to the former worker, which would take a certificate with it.
    """
    before = _worker(path)
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while _worker(path) in (None, before):
        if time.monotonic() > deadline:
            raise LabError("haproxy does not take its new configuration")
        time.sleep(0.05)


def _worker(path: Path) -> str | None:
    """Return the pid of the worker that has the socket; None if there is none."""
    try:
        lines = _ask(path, "show info").splitlines()
    except OSError:
        return None
    return next((line for line in lines if line.startswith("Pid:")), None)


def _ask(path: Path, question: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(str(path))
        connection.sendall(f"{question}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def remove() -> None:
    """Stop every load balancer that has a pid file, also those of another process. Idempotent."""
    for pid_file in RUN.glob("balancer-*.pid"):
        Daemon(pid_file.stem, []).stop()
    for suffix in ("cfg", "state", "sock", "pem"):
        for file in RUN.glob(f"{DEVICE_PREFIX}*.{suffix}"):
            file.unlink()
