"""The options with which clients on this machine reach a stack of the lab."""

import pytest

from lab import authority
from lab.outside import Outside
from lab.workspace import ROOT

ADDRESS = "198.51.100.20"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")


def outside(url):
    return Outside.of({"externalUrl": url, "publicAddresses": {"balancer": ADDRESS}})


def test_a_stack_with_tls_is_reached_by_name_and_with_the_labs_authority(tmp_path):
    assert outside("https://git.lab.example.com").curl() == (
        f"curl --cacert {tmp_path}/ca/authority.crt --resolve git.lab.example.com:443:{ADDRESS}"
        " https://git.lab.example.com/"
    )


def test_the_command_is_short_in_the_clones_folder(monkeypatch):
    monkeypatch.setattr(authority.Authority, "certificate", lambda _: ROOT / ".lab/ca/authority.crt")
    assert outside("https://git.lab.example.com").curl_options()[:2] == ["--cacert", ".lab/ca/authority.crt"]


def test_a_plain_stack_is_reached_by_its_address_alone():
    assert outside(f"http://{ADDRESS}").curl() == f"curl http://{ADDRESS}/"


def test_a_plain_stack_with_a_name_is_reached_by_that_name():
    assert outside("http://git.lab.example.com").curl_options() == [
        "--resolve",
        f"git.lab.example.com:80:{ADDRESS}",
    ]
