import os

from lab.cloud import names
from lab.cloud.names import command, render_hosts


def test_vendors_and_names(monkeypatch):
    monkeypatch.setattr(names, "ec2_hosts", lambda: ("ec2.a.amazonaws.com", "ec2.b.amazonaws.com"))
    assert render_hosts({"b.internal": ("10.42.0.5",), "a.test": ("198.51.100.17", "198.51.100.16")}) == (
        "198.51.100.2 packages.gitlab.com download.docker.com registry.gitlab.com registry-1.docker.io auth.docker.io\n"
        "198.51.100.2 ec2.a.amazonaws.com\n"
        "198.51.100.2 ec2.b.amazonaws.com\n"
        "198.51.100.16 a.test\n"
        "198.51.100.17 a.test\n"
        "10.42.0.5 b.internal\n"
    )


def test_machines_find_the_api_of_every_region():
    assert {"ec2.us-east-1.amazonaws.com", "ec2.eu-central-1.amazonaws.com"} <= set(names.ec2_hosts())


def test_every_other_name_does_not_exist():
    line = command(["10.42.0.2"])
    assert "--local=/#/" in line
    assert "--no-resolv" in line
    assert "--listen-address=10.42.0.2" in line


def test_only_changes_touch_the_server(monkeypatch, tmp_path):
    events = []

    class Daemon:
        def __init__(self, name, line):
            self.pid = None

        def start(self):
            self.pid = 4711
            events.append("start")

        def stop(self):
            events.append("stop")

    monkeypatch.setattr(names, "Daemon", Daemon)
    monkeypatch.setattr(names, "RUN", tmp_path)
    monkeypatch.setattr(names, "HOSTS", tmp_path / "names")
    monkeypatch.setattr(os, "kill", lambda pid, number: events.append(f"signal {number.name} to {pid}"))
    server = names.Names()
    server.apply({}, [])
    assert events == []
    server.apply({"a.test": ("10.42.0.5",)}, ["10.42.0.2"])
    server.apply({"a.test": ("10.42.0.5",)}, ["10.42.0.2"])
    assert events == ["stop", "start"]
    server.apply({"a.test": ("10.42.0.6",)}, ["10.42.0.2"])
    assert events[2:] == ["signal SIGHUP to 4711"]
    assert "10.42.0.6 a.test" in (tmp_path / "names").read_text()
