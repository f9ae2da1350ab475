"""What a stack must never lose: addresses, secrets, host keys, users, projects, the runner's record, images."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from lab import stack
from tests.e2e import people
from tests.e2e.operations import must

PROJECT = "gitlab-stack/acceptance"
"""The project for the images; the acceptance created it."""

RECORDS = """
puts JSON.generate(
  users: User.human.map { |user| [user.id, user.username, user.email] },
  projects: Project.all.map { |project| [project.id, project.full_path] },
  runners: Ci::Runner.all.map { |runner| [runner.id, runner.description, runner.token] }
)
"""


@dataclass(frozen=True)
class Holdings:
    """A snapshot; two snapshots are compared with `==`."""

    addresses: dict[str, Any]
    first_password: str
    git_host_keys: list[str]
    records: dict[str, Any]
    server_secrets: str
    registry_secret: str
    runner: str


def holdings() -> Holdings:
    """Take a snapshot of the stack."""
    people.make()
    outputs = stack.outputs()
    scan = subprocess.run(
        ["ssh-keyscan", "-T", "10", outputs["publicAddresses"]["balancer"]], capture_output=True, text=True, check=True
    )
    secrets = "cd /etc/gitlab && sha256sum gitlab-secrets.json registry-token.key registry-token.crt"
    return Holdings(
        addresses={kind: outputs[kind] for kind in ("publicAddresses", "privateAddresses", "externalUrl")},
        first_password=must("server", "cat /etc/gitlab/seeded-root-password /etc/gitlab/seeded-by-stack"),
        git_host_keys=sorted(line for line in scan.stdout.splitlines() if not line.startswith("#")),
        records=json.loads(must("server", "gitlab-rails runner -", stdin=RECORDS).splitlines()[-1]),
        server_secrets=must("server", secrets),
        registry_secret=must("registry", "sha256sum /srv/registry/http-secret.env"),
        runner=must("runner", "cat /etc/gitlab-runner/.runner_system_id; grep token /etc/gitlab-runner/config.toml"),
    )


def push(name: str, size: int = 65536) -> str:
    """Push an image of `size` random bytes from the runner's machine. Returns its name with digest."""
    outputs = _log_in()
    image = f"{outputs['registryHost']}/{PROJECT}/{name}:kept"
    make = f"head -c {size} /dev/urandom >/var/tmp/{name} && tar -C /var/tmp -c {name} | docker import - {image}"
    must("runner", f"{make} && rm /var/tmp/{name}")
    pushed = must("runner", f"docker push {image}")
    digest = pushed.rpartition("digest: ")[2].split()[0]
    must("runner", f"docker image rm {image}")
    return f"{image.removesuffix(':kept')}@{digest}"


def pull(image: str) -> None:
    """Pull an image to the runner's machine and remove it again."""
    _log_in()
    must("runner", f"docker pull {image} && docker image rm {image}")


def _log_in() -> dict[str, Any]:
    outputs = stack.outputs()
    people.log_in(outputs)
    return outputs
