"""The acceptance: the checks that end every `up` that changed something; the last ones run in a pipeline."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.gitlab_server import GitLabServer
from components.load_balancer import LoadBalancer
from components.network import Addresses
from components.remote_host import LOGIN_USER, RemoteHost, Step
from components.security import SecurityGroupRules
from components.virtual_machine import VirtualMachine
from configuration import acceptance_project, checks, report
from configuration.checks import Check, Endpoints
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, script
from configuration.zipapp import build_zipapp
from settings import Settings


class Acceptance(pulumi.ComponentResource):
    """Uses the stack like its users, and fails `up` if a check fails.

    The checks of configuration/checks.py run on one machine after the other. They run again if anything they cover has
    changed: a machine, the input of a step, the rules, the listeners or the clients' networks.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        machines: Mapping[Place, VirtualMachine],
        addresses: Addresses,
        rules: SecurityGroupRules,
        load_balancer: LoadBalancer,
        server: GitLabServer,
        external_url: pulumi.Output[str],
        public_host: pulumi.Output[str],
        runner_name: str,
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:acceptance:Acceptance", name, None, opts)
        self._hosts = {role: machine.host for role, machine in machines.items()}
        self._endpoints = pulumi.Output.all(
            external_url=external_url,
            host=public_host,
            balancer_address=addresses.public[Place.LOAD_BALANCER],
            registry_private_address=addresses.private[Place.REGISTRY],
            git_ssh_host_key=server.git_ssh_host_key,
        ).apply(
            lambda known: Endpoints(
                web_port=settings.web_port,
                registry_port=settings.registry_port,
                runner_name=runner_name,
                project=acceptance_project.PROJECT_PATH,
                **known,
            )
        )
        self._settings = settings
        self._program = build_zipapp(PROGRAMS / "acceptance_checks")
        self._triggers: list[pulumi.Input[str]] = [
            *(host.fingerprint for host in self._hosts.values()),
            *map(repr, (rules.rules, load_balancer.listeners, settings.client_cidrs)),
            own_text(self._program),
        ]

        scheduled = [machine.updates_scheduled.command for machine in machines.values()]
        from_server = self._check_from(Place.SERVER, after=[server.ready, load_balancer, *scheduled, *after])
        from_runner = self._check_from(Place.RUNNER, follows=from_server)
        steps = [from_server, from_runner]
        if settings.acceptance_pipeline:
            at_registry = self._check_from(Place.REGISTRY, follows=from_runner)
            pipeline = self._run_pipeline(settings, follows=at_registry)
            steps += [at_registry, pipeline, self._find_image(pipeline)]
        self.result = pulumi.Output.all(*(step.result for step in steps)).apply(report.results)
        """The checks that passed, each with its duration in seconds."""
        self.inspection = _inspection(settings, self._endpoints, self._hosts)
        """The data that the doctor needs to run the same checks at any time. Secret, since it grants access."""
        self.register_outputs({"result": self.result})

    def _check_from(self, place: Place, *, follows: Step | None = None, after: Sequence[pulumi.Resource] = ()) -> Step:
        selected = checks.checks_from(place, backup=self._settings.backup)
        task = self._task(selected, {"security_updates": self._settings.security_updates})
        return self._run_checks(place, place.value, [task], follows=follows, after=after)

    def _run_pipeline(self, settings: Settings, *, follows: Step) -> Step:
        files = acceptance_project.files(settings.acceptance_image, acceptance_project.runner_tags(settings))
        task = self._task(checks.checks_by_pipeline(), {"console": script("acceptance_token.rb"), "files": files})
        start = follows.result.apply(lambda printed: json.dumps({"facts": report.facts(printed)}))
        return self._run_checks(Place.SERVER, "pipeline", [task, start], follows=follows, name="run_pipeline")

    def _task(self, selected: Sequence[Check], more: Mapping[str, object] | None = None) -> pulumi.Output[str]:
        return self._endpoints.apply(lambda endpoints: report.task(endpoints, selected, show_progress=True, more=more))

    def _find_image(self, pipeline: Step) -> Step:
        return self._hosts[Place.REGISTRY].run(
            "find_image",
            arguments=[
                pipeline.result.apply(lambda printed: report.pushed_image(printed).name),
                pipeline.result.apply(lambda printed: report.pushed_image(printed).digest),
            ],
            triggers=[*self._triggers, pipeline.result],
            limit=300,
            read_only=True,
            parent=self,
        )

    def _run_checks(
        self,
        machine: Place,
        group: str,
        messages: Sequence[pulumi.Input[str]],
        *,
        follows: Step | None,
        after: Sequence[pulumi.Resource] = (),
        name: str | None = None,
    ) -> Step:
        return self._hosts[machine].run(
            "run_checks",
            name=name,
            former_name=None if name else "walk_hops",
            arguments=[group],
            payload=[self._program, *messages],
            after=[follows.command] if follows else after,
            # Re-running a step re-runs all later ones.
            triggers=[*self._triggers, *([follows.result] if follows else [])],
            shows_progress=True,
            read_only=True,
            parent=self,
        )


def own_text(program: bytes) -> str:
    """Changes if the program that runs the checks or any script of the acceptance changes.

    It is a trigger of all steps, because a step's results are valid only after the steps before it.
    """
    scripts = [script(name) for name in ("run_checks.sh", "acceptance_token.rb", "find_image.sh")]
    return hashlib.sha256(program + "\0".join(scripts).encode()).hexdigest()


def _inspection(
    settings: Settings, endpoints: pulumi.Output[Endpoints], hosts: Mapping[Place, RemoteHost]
) -> pulumi.Output[dict[str, Any]]:
    return pulumi.Output.secret(
        {
            "stack": endpoints.apply(dataclasses.asdict),  # a former name, kept because existing states contain it
            "user": LOGIN_USER,
            "publicKey": settings.ssh_public_key,
            **({"privateKey": settings.ssh_private_key} if settings.ssh_private_key else {}),
            "machines": {role.value: host.ssh_access for role, host in hosts.items()},
            "acceptanceImage": settings.acceptance_image if settings.acceptance_pipeline else None,
            "acceptanceTags": acceptance_project.runner_tags(settings),
            "gitlabVersion": settings.gitlab_version,
            "securityUpdates": settings.security_updates,
            "backup": settings.backup,
        }
    )
