"""Run by test_cloud_packets.py in network and mount namespaces of its own: the lab's network with real packets.

Reads interfaces, rules and probes from standard input and makes the network as the cloud does. Every interface
listens on `PORT` and tells whoever connects as whom it sees him. Prints one answer a probe: that address, or null when
nobody answered in time.
"""

import ctypes
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lab.cloud import network
from lab.cloud.network import NAMESPACES, Interface, Network, Rule
from lab.cloud.shell import call

PORT = 80
PATIENCE = 0.5  # seconds; everything is on one machine
CLONE_NEWNET = 0x40000000

T = TypeVar("T")
libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    wanted = json.load(sys.stdin)
    interfaces = [Interface(**{**i, "groups": i["groups"] and tuple(i["groups"])}) for i in wanted["interfaces"]]
    rules = [Rule(**rule) for rule in wanted["rules"]]
    call("mount", "-t", "tmpfs", "tmpfs", "/run")  # for the names of the namespaces
    call("ip", "link", "set", "lo", "up")
    network.Host().apply(Network(tuple(interfaces), tuple(rules)))
    for interface in interfaces:
        call("ip", "netns", "add", interface.key)
        network.plug_in(interface, NAMESPACES / interface.key)
        threading.Thread(target=_serve, args=(_inside(interface, _listen),), daemon=True).start()
    keys = {interface.id: interface for interface in interfaces}
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda probe: _inside(keys[probe[0]], lambda: _ask(probe[1])), wanted["probes"])
    json.dump(list(answers), sys.stdout)


def _inside(interface: Interface, work: Callable[[], T]) -> T:
    """Do something in a thread that is in the interface's network namespace: its sockets stay there."""
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


def _listen() -> socket.socket:
    return socket.create_server(("0.0.0.0", PORT))


def _serve(listening: socket.socket) -> None:
    while True:
        connection, (address, _) = listening.accept()
        connection.sendall(address.encode())
        connection.close()


def _ask(address: str) -> str | None:
    try:
        with socket.create_connection((address, PORT), timeout=PATIENCE) as connection:
            return connection.recv(64).decode()
    except TimeoutError:
        return None


if __name__ == "__main__":
    main()
