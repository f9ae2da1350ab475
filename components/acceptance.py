"""The proof that ends every `up` which changed something: every hop is walked, and a pipeline pushes and pulls."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.remote_host import LOGIN_USER, RemoteHost, Step
from configuration import acceptance_project, hops
from configuration.flows import Place
from configuration.remote_step import program, script
from settings import Settings


def inspection(
    settings: Settings, *, stack: pulumi.Output[hops.Stack], hosts: Mapping[Place, RemoteHost]
) -> pulumi.Output[dict[str, Any]]:
    """What the doctor needs to walk the same hops at any time: a secret, since it lets in."""
    return pulumi.Output.secret(
        {
            "stack": stack.apply(dataclasses.asdict),
            "user": LOGIN_USER,
            "privateKey": settings.ssh_private_key,
            "machines": {role.value: host.way_in for role, host in hosts.items()},
            "acceptanceImage": settings.acceptance_image if settings.acceptance_pipeline else None,
        }
    )


class Acceptance(pulumi.ComponentResource):
    """Uses the stack as its users will, and fails the `up` with the hop that is broken.

    It looks from one machine after the other, and from each along the list of configuration/hops.py. It is repeated
    when anything it proves has changed: a machine, something a machine was told, or `also_proves`.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        hosts: Mapping[Place, RemoteHost],
        stack: pulumi.Output[hops.Stack],
        also_proves: Sequence[pulumi.Input[str]],
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:acceptance:Acceptance", name, None, opts)
        self._hosts = hosts
        self._stack = stack
        # Its own text as well: what has changed in one step proves something only after those before it.
        texts = [program("hops.py"), *map(script, ("walk_hops.sh", "acceptance_token.rb", "find_image.sh"))]
        own_text = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        self._triggers = [*(host.fingerprint for host in hosts.values()), *also_proves, own_text]

        from_server = self._look(Place.SERVER, after=after)
        from_runner = self._look(Place.RUNNER, follows=from_server)
        reports = [from_server.result, from_runner.result]
        if settings.acceptance_pipeline:
            at_registry = self._look(Place.REGISTRY, follows=from_runner)
            pipeline = self._run_pipeline(settings, follows=at_registry)
            reports += [pipeline.result, self._find_image(pipeline).result]
        self.result = pulumi.Output.all(*reports).apply(hops.walked)
        self.register_outputs({"result": self.result})

    def _look(self, view: Place, *, follows: Step | None = None, after: Sequence[pulumi.Resource] = ()) -> Step:
        task = self._stack.apply(lambda stack: hops.task(stack, hops.seen_from(view)))
        return self._walk(view, view.value, [task], follows=follows, after=after)

    def _run_pipeline(self, settings: Settings, *, follows: Step) -> Step:
        files = acceptance_project.files(settings.acceptance_image)
        console = script("acceptance_token.rb")
        task = self._stack.apply(lambda stack: hops.task(stack, hops.seen_by_pipeline(), console=console, files=files))
        go = follows.result.apply(lambda report: json.dumps({"facts": hops.facts(report)}))
        return self._walk(Place.SERVER, "pipeline", [task, go], follows=follows, name="run_pipeline")

    def _find_image(self, pipeline: Step) -> Step:
        return self._hosts[Place.REGISTRY].run(
            "find_image",
            arguments=[
                pipeline.result.apply(lambda report: hops.pushed_image(report).name),
                pipeline.result.apply(lambda report: hops.pushed_image(report).digest),
            ],
            triggers=[*self._triggers, pipeline.result],
            limit=300,
            only_looks=True,
            parent=self,
        )

    def _walk(
        self,
        machine: Place,
        view: str,
        lines: Sequence[pulumi.Input[str]],
        *,
        follows: Step | None,
        after: Sequence[pulumi.Resource] = (),
        name: str = "walk_hops",
    ) -> Step:
        return self._hosts[machine].run(
            "walk_hops",
            name=name,
            arguments=[view],
            payload=[program("hops.py"), *lines],
            after=[follows.command] if follows else after,
            # Who repeats a step repeats what follows it.
            triggers=[*self._triggers, *([follows.result] if follows else [])],
            shows_progress=True,
            only_looks=True,
            parent=self,
        )
