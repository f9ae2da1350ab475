"""The lab's network with real packets. test_cloud_packets.py runs it in separate network and mount namespaces.

Reads JSON from standard input. The first line has the interfaces, the load balancer and the ports: creates the network
as the cloud does. Every interface except the load balancer's, and another host of the internet, listen on the ports and
send each client the source address they see. Each other line has rules and probes: applies the rules, and prints a line
with one result per probe: that address, or null without a response in time. A probe without an interface is the
operator's.
"""

import contextlib
import ctypes
import functools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lab import workspace
from lab.cloud import balancers, host_network
from lab.cloud.balancers import HEALTHY, Balancer, Balancers, Listener, Target, TargetGroup
from lab.cloud.network import ELSEWHERE, NAMESPACES, Interface, Network, Rule
from lab.shell import call

PORT = 80
PATIENCE = 0.3  # seconds until a connection exists; the kernel alone opens it, on one machine
ANSWER_PATIENCE = 1.0  # seconds from then on, for the answer of a thread, maybe through the load balancer
AT_ONCE = 512  # probes; those without a response only wait
BALANCER_PATIENCE = 10.0  # seconds until a target is healthy
CLONE_NEWNET = 0x40000000

T = TypeVar("T")
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    wanted = json.loads(sys.stdin.readline())
    interfaces = tuple(Interface(**{**i, "groups": i["groups"] and tuple(i["groups"])}) for i in wanted["interfaces"])
    keys = {interface.id: interface for interface in interfaces}
    balancer = _balancer(keys, **wanted["balancer"]) if wanted["balancer"] else None
    preserving = balancer.preserving() if balancer else None
    call("mount", "-t", "tmpfs", "tmpfs", "/run")  # for the names of the namespaces
    call("ip", "link", "set", "lo", "up")
    host = host_network.Host()
    host.apply(Network(interfaces, ()))
    for interface in interfaces:
        if balancer and interface == balancer.interface:
            continue
        call("ip", "netns", "add", interface.key)
        host_network.plug_in(interface, NAMESPACES / interface.key)
        for port in wanted["ports"]:
            listening = _inside(interface, functools.partial(_listen, port))
            threading.Thread(target=_serve, args=(listening,), daemon=True).start()
    for port in wanted["ports"]:
        threading.Thread(target=_serve, args=(_listen(port, ELSEWHERE),), daemon=True).start()
    for line in sys.stdin:
        asked = json.loads(line)
        rules = tuple(Rule(**rule) for rule in asked["rules"])
        host.apply(Network(interfaces, rules, (preserving,) if preserving else ()))
        with _running(balancer), ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(lambda probe: _probe(keys.get(probe[0]), *probe[1:]), asked["probes"])
            print(json.dumps(list(answers)), flush=True)


def _balancer(keys: dict[str, Interface], interface: str, target: str, preserves: bool, number: int) -> Balancer:
    """Return a load balancer that forwards `PORT` to the same port of the target."""
    targets = (Target(target, PORT, "a", keys[target].address),)
    group = TargetGroup("arn", "group", targets, preserve_client_ip=preserves, check_interval=1, healthy_after=1)
    return Balancer("front", "a", keys[interface], (Listener(PORT, "TCP", group),), number)


@contextlib.contextmanager
def _running(balancer: Balancer | None) -> Iterator[None]:
    """Run the load balancer; yields when its target is healthy or has had time to become it."""
    workspace.RUN = workspace.LOGS = Path("/run")
    balancers.RUN = workspace.RUN  # type: ignore[attr-defined]
    made = Balancers(lambda name: None, lambda key, text: None)
    try:
        deadline = time.monotonic() + BALANCER_PATIENCE
        while balancer and time.monotonic() < deadline and HEALTHY not in made.reconcile(balancer).values():
            time.sleep(0.05)
        yield
    finally:
        if balancer:
            made.remove(balancer.name)


def _probe(source: Interface | None, address: str, port: int) -> str | None:
    return _inside(source, lambda: _ask(address, port)) if source else _ask(address, port)


def _inside(interface: Interface, work: Callable[[], T]) -> T:
    """Do `work` in a thread in the interface's network namespace, where its sockets stay."""
    done: list[T] = []

    def enter() -> None:
        handle = os.open(NAMESPACES / interface.key, os.O_RDONLY)
        if libc.setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(handle)
        done.append(work())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return done[0]


def _listen(port: int, address: str = "0.0.0.0") -> socket.socket:
    return socket.create_server((address, port))


def _serve(listening: socket.socket) -> None:
    while True:
        connection, (address, _) = listening.accept()
        connection.sendall(address.encode())
        connection.close()


def _ask(address: str, port: int) -> str | None:
    try:
        with socket.create_connection((address, port), timeout=PATIENCE) as connection:
            connection.settimeout(ANSWER_PATIENCE)
            return connection.recv(64).decode() or None
    except (TimeoutError, ConnectionError):
        return None


if __name__ == "__main__":
    main()
