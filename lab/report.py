"""Reports of the command line: the lab's state, the progress of its machines, and the result of a run."""

import contextlib
import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lab import parts, stack, versions
from lab.outside import Outside
from lab.workspace import PROGRESS_INTERVAL, LabError, say

WATCH_INTERVAL = 2.0  # seconds


def cloud_status() -> dict[str, Any] | None:
    """Return the status that the cloud reports; None if it is not running."""
    # Ignore proxies of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{stack.API}/_lab/status", timeout=10) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except (OSError, ValueError):
        return None


def machine(role: str, stack_name: str = stack.STACK) -> dict[str, Any]:
    """Return the stack's machine with this role. Raises LabError if there is none or the cloud is not running."""
    status = cloud_status()
    if status is None:
        raise LabError("the lab is not up: run make up")
    names = [str(found["name"]) for found in status["machines"]]
    for found in status["machines"]:
        if found["name"] == f"{role}-{stack_name}":
            return dict(found)
    raise LabError(f"no machine is named {role}-{stack_name}; the machines are: {', '.join(sorted(names)) or 'none'}")


def overview(status: dict[str, Any], running: dict[str, bool]) -> str:
    """Return the output of `lab status`."""
    names = {found["instance_id"]: found["name"] for found in status["machines"]}
    sections: dict[str, list[Sequence[object]]] = {
        "Parts": [(name, "running" if alive else "not running") for name, alive in running.items()],
        "Machines": [_machine(found) for found in status["machines"]],
        "Load balancers": [
            _target(balancer["address"], target, names)
            for balancer in status["balancers"]
            for target in balancer["targets"]
        ],
        "Volumes": [
            (volume["id"], f"{volume['size']} GiB", volume["status"] or "available", names.get(volume["instance"], "-"))
            for volume in status["volumes"]
        ],
        "Flows": [_flow(flow) for flow in status["flows"]],
        "Dropped in the last ten minutes": [
            (f"{drop['from']} → {drop['to']}", f"{drop['protocol']} {drop['port']}")
            for drop in status.get("rejected") or []
        ],
    }
    text = [f"{title}\n{_table(rows) or '  none'}" for title, rows in sections.items()]
    return "\n".join([*text, real_and_played()])


def real_and_played() -> str:
    """Return the lists of real and played parts, with the parts of `LAB_PARTS` that are in use."""
    taken = parts.in_place()
    server = parts.KNOWN[parts.REGISTRY] if parts.REGISTRY in taken else "the container registry's server (Debian's)"
    real = [
        f"the program, Pulumi's engine {versions.PULUMI} and HashiCorp's AWS provider {versions.TERRAFORM_AWS}",
        "systemd, cloud-init, SSH, dnf with signed repositories, Docker",
        *(parts.KNOWN[name] for name in (parts.COMMAND_PLUGIN, parts.RUNNER, parts.GITLAB) if name in taken),
        server,
        *(() if parts.GITLAB in taken else ["nginx in front of GitLab"]),
        "disks, routing, packet filter and the load balancer's health checks",
    ]
    played = [
        f"AWS's API (moto) and Pulumi's AWS {'plugin' if parts.COMMAND_PLUGIN in taken else 'and command plugins'}",
        "RHEL 8 (Debian configured like it)",
        *(() if parts.GITLAB in taken else ["GitLab CE behind its nginx"]),
        *(() if parts.RUNNER in taken else ["gitlab-runner"]),
        "the vendors' addresses. lab/README.md describes what a run on the lab shows and what it does not",
    ]
    return f"Real\n  {'; '.join(real)}\nPlayed\n  {'; '.join(played)}"


def summary(outputs: dict[str, Any]) -> str:
    """Return what the user needs after `up`: addresses, login, acceptance, and how a client here gets through."""
    lines = [
        ("GitLab", outputs["externalUrl"]),
        ("Log in", "as root; this shows the first password: make root-password STACK=lab"),
        ("Registry", outputs["registryHost"]),
    ]
    checks = [(f"✓ {check['check']}", f"{check['seconds']:.2f} s") for check in outputs["acceptance"]]
    return f"{_table(lines)}\nAcceptance\n{_table(checks)}\nFrom this machine\n  {Outside.of(outputs).curl()}"


@contextlib.contextmanager
def machines_watched() -> Iterator[None]:
    """Print changes of machines and targets; not on a terminal, where the engine redraws its own display."""
    if sys.stdout.isatty():
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(over,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(over: threading.Event) -> None:
    started = printed = time.monotonic()
    before: set[str] = set()
    while not over.wait(WATCH_INTERVAL):
        status = cloud_status()
        now = set(_facts(status)) if status else before
        lines = sorted(now - before)
        if not lines and time.monotonic() - printed > PROGRESS_INTERVAL:
            lines = ["…"]
        if lines:
            printed = time.monotonic()
        for line in lines:
            say(f"  {printed - started:4.0f} s  {line}")
        before = now


def _facts(status: dict[str, Any]) -> Iterator[str]:
    names = {found["instance_id"]: found["name"] for found in status["machines"]}
    for found in status["machines"]:
        boot = f", first boot {found['cloud_init']}" if found["cloud_init"] != "-" else ""
        yield f"machine {found['name']}: {found['state']}{boot}"
        if found.get("error"):
            yield f"machine {found['name']}: {found['error']}"
    for balancer in status["balancers"]:
        for target in balancer["targets"]:
            name = names.get(target["instance_id"], target["instance_id"])
            yield f"load balancer {balancer['name']}: port {target['port']} to {name} {target['health']}"
        if balancer.get("error"):
            yield f"load balancer {balancer['name']}: {balancer['error']}"


def _machine(found: dict[str, Any]) -> Sequence[object]:
    addresses = (found["private_ip"] or "-", found["public_ip"] or "-")
    boot = f"first boot {found['cloud_init']}"
    return (found["name"], found["instance_id"], found["state"], *addresses, boot, found.get("error") or "")


def _target(address: str, target: dict[str, Any], names: dict[str, str]) -> Sequence[object]:
    row = (f"{address}:{target['port']}", names.get(target["instance_id"], "-"), target["health"])
    if certificate := target.get("certificate"):
        return (*row, f"TLS for {', '.join(certificate['names'])} until {certificate['expires'][:10]}")
    return (*row, "")


def _flow(flow: dict[str, Any]) -> Sequence[object]:
    first, last = flow["first_port"], flow["last_port"]
    ports = "" if first is None else f" {first}" if first == last else f" {first}-{last}"
    return (flow["direction"], f"{flow['from']} → {flow['to']}", f"{flow['protocol']}{ports}", flow["why"] or "")


def _table(rows: Iterable[Sequence[object]]) -> str:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join(f"  {line}" for line in lines)
