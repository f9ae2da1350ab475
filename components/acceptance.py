"""The proof that ends every `up` which changed something: an image pushed from the runner's machine comes back."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.remote_host import RemoteHost
from configuration.flows import Place
from configuration.remote_step import script

STEPS = ("issue_credential", "prove_stack", "find_image", "revoke_credential")


def merge_reports(*reports: str) -> list[dict[str, Any]]:
    """The checks of several steps' JSON reports, in order: name and seconds of each."""
    return [check for report in reports for check in json.loads(report)["checks"]]


class Acceptance(pulumi.ComponentResource):
    """Uses the stack as its users will, with a short-lived credential, and fails the `up` with the hop that broke.

    It is repeated when anything it proves has changed: a machine, something a machine was told, or `also_proves`.
    """

    def __init__(
        self,
        name: str,
        *,
        hosts: Mapping[Place, RemoteHost],
        project: str,
        external_url: pulumi.Input[str],
        public_host: pulumi.Input[str],
        registry_port: int,
        git_ssh_host_key: pulumi.Input[str],
        also_proves: Sequence[pulumi.Input[str]],
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:acceptance:Acceptance", name, None, opts)
        credential_program = script("issue_credential.rb")
        # Its own text as well: one new part of the proof alone would meet a credential that is revoked.
        texts = [credential_program, *(script(f"{step}.sh") for step in STEPS)]
        own_text = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        triggers = [*(host.fingerprint for host in hosts.values()), *also_proves, own_text]
        issued = hosts[Place.SERVER].run(
            "issue_credential",
            arguments=[project],
            payload=[credential_program],
            after=after,
            triggers=triggers,
            secret_result=True,
            limit=900,
            parent=self,
        )
        credential = issued.result.apply(json.loads)
        proven = hosts[Place.RUNNER].run(
            "prove_stack",
            arguments=[external_url, public_host, str(registry_port), project, git_ssh_host_key],
            payload=[credential["username"], credential["token"]],
            triggers=triggers,
            limit=1200,
            parent=self,
        )
        found = hosts[Place.REGISTRY].run(
            "find_image",
            arguments=[
                f"{project}/acceptance:latest",
                proven.result.apply(lambda report: str(json.loads(report)["digest"])),
            ],
            triggers=triggers,
            limit=300,
            parent=self,
        )
        hosts[Place.SERVER].run(
            "revoke_credential",
            arguments=[project],
            payload=[credential_program],
            after=[found.command],
            # The image's digest differs from run to run: every credential that was used is revoked.
            triggers=[*triggers, proven.result],
            limit=900,
            parent=self,
        )
        self.result = pulumi.Output.all(proven.result, found.result).apply(lambda reports: merge_reports(*reports))
        self.register_outputs({"result": self.result})
