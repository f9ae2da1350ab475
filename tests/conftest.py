"""The stack under test: Pulumi.dev.yaml as committed, with a key pair generated for the test run."""

import base64
import functools
import os
import signal
import types
import unittest.mock
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from programs.acceptance_checks import clients, messages, run
from tests.certificates import Signed, authority, issue
from tests.check_runs import PlayedGitLab
from tests.engine import Graph, run_program, stack_config
from tests.registry import fill
from tools.registry_server import SERVERS, Registry, State, find
from validation import private_keys
from validation.ed25519 import public_from_seed
from validation.private_keys import ED25519, OPENSSH_MAGIC
from validation.private_keys import string as ssh_string


def pytest_configure() -> None:
    # A shell's background job ignores both, and the programs that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # The keys of the tests are not in the user's agent.
    os.environ.pop("SSH_AUTH_SOCK", None)


@functools.cache
def openssh_pair(seed: bytes = b"k", cipher: bytes = b"none") -> tuple[str, str]:
    """Public key line and private key of OpenSSH, derived from a seed."""
    secret = seed * 32
    numbers = public_from_seed(secret)
    public = ssh_string(ED25519) + ssh_string(numbers)
    check = b"1234"
    private = check * 2 + ssh_string(ED25519) + ssh_string(numbers) + ssh_string(secret + numbers) + ssh_string(b"test")
    private += bytes(range(1, 1 + -len(private) % 8))
    blob = OPENSSH_MAGIC + b"".join(map(ssh_string, (cipher, b"none", b""))) + (1).to_bytes(4)
    body = base64.b64encode(blob + ssh_string(public) + ssh_string(private)).decode()
    kind = "OPENSSH PRIVATE KEY"
    return (
        f"ssh-ed25519 {base64.b64encode(public).decode()} test",
        f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n",
    )


def dev_config(**changes):
    public, private = openssh_pair()
    return stack_config("dev", **{"sshPublicKey": public, "sshPrivateKey": private} | changes)


def tls_config():
    """A domain, a certificate, a hosted zone and everything else that is optional."""
    return dev_config(
        domain="git.example.com",
        certificateArn="arn:aws:acm:eu-central-1:123456789012:certificate/12345678-1234-1234-1234-123456789012",
        hostedZoneId="Z0123456789ABC",
        clientCidrs=["0.0.0.0/0"],
        acceptUnsupportedGitlab=True,
        initialRootPassword="first-Secret-4711",
        smtpAddress="mail.example.com",
        smtpUserName="git",
        smtpPassword="mail-secret",
        emailFrom="git@example.com",
        gitlabRb="puma['worker_processes'] = 2 # extra-secret",
        amiId="ami-0fedcba9876543210",
        runnerTags=["docker"],
        deletionProtection=False,
        registryGarbageCollection="Sun 03:00",
    )


KEPT = {
    "serverDataVolumeId": "vol-0123456789abcdef1",
    "registryDataVolumeId": "vol-0123456789abcdef2",
    "balancerAddressId": "eipalloc-0123456789abcdef0",
}
"""What another stack left, by the settings that name it."""

OTHER_PACKAGE_KEYS = {"gitlabPackageKeys": "ab" * 20, "dockerPackageKeys": "cd" * 20, "runnerPackageKeys": "ef" * 20}
OTHER_REGISTRY_IMAGE = f"mirror.example.com:5001/registry:v4.15.2-gitlab@sha256:{'ab' * 32}"
OTHER_BOUNDARY = "arn:aws:iam::123456789012:policy/gitlab-boundary"


def other_config():
    """Other values of settings that have one in the dev stack or a default."""
    public, private = openssh_pair(b"o")
    return dev_config(
        sshPublicKey=public,
        sshPrivateKey=private,
        registryPort="5050",
        networkCidr="10.43.0.0/16",
        adminCidrs=["198.51.100.0/24"],
        **{f"{machine}InstanceType": "m6i.2xlarge" for machine in ("server", "registry", "runner")},
        amiId="ami-0fedcba9876543210",
        tags={"Project": "another", "Boolean": True, "Number": 12345},
        runnerName="gitlab-prod",
        gitlabSettings={"admin_mode": False, "akismet_api_key": "of-akismet", "signup_enabled": None},
        acceptanceImage="registry.example.com/curl:1",
        registryImage=OTHER_REGISTRY_IMAGE,
        registryGarbageCollection="Sun 03:00",
        registryGarbageCollectionUntagged=True,
        permissionsBoundary=OTHER_BOUNDARY,
        **{setting: [fingerprint] for setting, fingerprint in OTHER_PACKAGE_KEYS.items()},
        **KEPT,
    )


def requested_certificate_config(**changes):
    """A domain without hosted zone and certificate: the program requests one, and shows the DNS records to make."""
    return dev_config(domain="git.example.com", **changes)


@functools.cache
def own_authority() -> Signed:
    """An authority that is not public, the same each time."""
    return authority("Example authority")


@functools.cache
def own_certificate() -> Signed:
    """A certificate for the domain, the same each time."""
    return issue(issuer=own_authority())


def own_certificate_config(**changes):
    """A domain with an own certificate, issued by an authority that is not public."""
    return dev_config(**own_certificate().settings(authority=own_authority()) | changes)


@pytest.fixture(autouse=True, scope="session")
def no_progress() -> Iterator[None]:
    """Checks in this process write no progress to descriptor 4, which pytest-xdist uses for its own messages."""
    with unittest.mock.patch.object(messages, "os", types.SimpleNamespace(write=lambda _descriptor, text: len(text))):
        yield


@pytest.fixture(autouse=True, scope="session")
def public_keys_derived_once() -> Iterator[None]:
    """Most tests read the same private key, and Python needs milliseconds to derive the public one."""
    with unittest.mock.patch.object(private_keys, "public_from_seed", functools.cache(public_from_seed)):
        yield


@pytest.fixture(scope="session")
def graph() -> Graph:
    """The dev stack: plain HTTP on the load balancer's address."""
    return run_program(dev_config())


@pytest.fixture(scope="session")
def tls_graph() -> Graph:
    return run_program(tls_config())


@pytest.fixture(scope="session")
def requested_graph() -> Graph:
    return run_program(requested_certificate_config(hostedZoneId="Z0123456789ABC"))


@pytest.fixture(scope="session")
def own_graph() -> Graph:
    return run_program(own_certificate_config())


@pytest.fixture(scope="session")
def other_graph() -> Graph:
    return run_program(other_config())


@pytest.fixture(scope="session")
def upgraded_graph() -> Graph:
    """The dev stack with later versions, each of which is installed on one machine."""
    return run_program(dev_config(gitlabVersion="17.11.7", runnerVersion="17.10.2", registryVersion="4.17.1"))


@pytest.fixture(scope="session")
def reduced_graph() -> Graph:
    """Plain HTTP for a domain, without backups, security updates and the acceptance's pipeline."""
    return run_program(
        dev_config(domain="git.example.com", plainHttp=True, backup=False, securityUpdates="", acceptancePipeline=False)
    )


@pytest.fixture(scope="session", params=SERVERS)
def server(request, need) -> str:
    """Each registry server that is installed: Debian's, and GitLab's as a real part of the lab."""
    if request.param == "docker-registry":
        need(request.param)
    elif not find(request.param):
        pytest.skip(f"{request.param} is not in LAB_PARTS (see lab/README.md)")
    return request.param


class Filled(NamedTuple):
    """A running server with the example content, the digests by name, and its state."""

    registry: Registry
    made: dict[str, str]
    state: State


@pytest.fixture(scope="session")
def filled(server, tmp_path_factory) -> Iterator[Filled]:
    with Registry(server, tmp_path_factory.mktemp("registry")).running() as registry:
        yield Filled(registry, fill(registry), registry.state())


@pytest.fixture
def registry(filled) -> Iterator[Registry]:
    """The filled registry, which a test may change: it is restored afterwards."""
    yield filled.registry
    filled.registry.restore(filled.state)


@pytest.fixture
def gitlab(tmp_path, monkeypatch) -> Iterator[PlayedGitLab]:
    server = PlayedGitLab(tmp_path / "socket")
    monkeypatch.setattr(clients, "WORKHORSE", str(tmp_path / "socket"))
    monkeypatch.setattr(run, "RETRY_INTERVAL", 0.01)
    yield server
    server.shutdown()
    server.server_close()
