"""Runs the unmodified `__main__.py` under Pulumi's mocks and records the whole graph.

Stricter than the mocks: an unexpected invoke and a name registered twice are errors, options are recorded from the
registration requests (mocks never see them), and results are returned only after every registration has completed.
"""

import asyncio
import contextlib
import contextvars
import functools
import json
import runpy
import unittest.mock
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pulumi
import yaml
from pulumi.runtime import mocks, resource, rpc
from pulumi.runtime import stack as pulumi_stack
from pulumi.runtime.proto import engine_pb2, source_pb2

ROOT = Path(__file__).resolve().parent.parent
PROJECT = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())

STEP_RESULTS: dict[str, str] = json.loads((ROOT / "remote/examples.json").read_text())
"""The output of each step; the program does not read that of the other steps."""

HOST_KEY = STEP_RESULTS["host-key"]
CERTIFICATE = STEP_RESULTS["make-token-key"]
_PREPARED = json.loads(STEP_RESULTS["prepare-gitlab"])
RUNNER_TOKEN = _PREPARED["runnerToken"]
GIT_HOST_KEY = _PREPARED["gitSshHostKey"]
IMAGE, DIGEST = json.loads(STEP_RESULTS["run-pipeline"])["detail"].split("@")

MARKED = {"gitlab-stack": f"{PROJECT['name']}/test"}
"""The tag of existing AWS resources that belong to the stack under test."""

LOOKUPS: Mapping[str, Mapping[str, Any]] = {
    "aws:ec2/getAmi:getAmi": {"id": "ami-0123456789abcdef0", "architecture": "x86_64"},
    "aws:ec2/getInstanceType:getInstanceType": {
        "supportedArchitectures": ["x86_64"],
        "hypervisor": "nitro",
        "ebsNvmeSupport": "required",
        "memorySize": 16384,
        "defaultVcpus": 4,
    },
    "aws:ebs/getVolume:getVolume": {
        "id": "vol-0123456789abcdef0",
        "availabilityZone": "eu-central-1a",
        "encrypted": True,
        "size": 100,
        "volumeType": "gp3",
        "tags": MARKED,
    },
    "aws:ec2/getElasticIp:getElasticIp": {
        "publicIp": "203.0.113.9",
        "networkInterfaceId": "eni-0123456789abcdef0",
        "tags": MARKED,
    },
    "aws:ec2/getNetworkInterface:getNetworkInterface": {
        "description": "ELB net/gitlab-1234567/0123456789abcdef",
        "interfaceType": "network_load_balancer",
        "vpcId": "vpc-0123456789abcdef0",
    },
    "aws:route53/getZone:getZone": {"name": "example.com", "privateZone": False},
}
"""AWS's response to each lookup, whichever resource is requested."""

BACKUP: Mapping[str, Mapping[str, Any]] = {
    f"snap-0123456789abcdef{number}": {
        "id": f"snap-0123456789abcdef{number}",
        "state": "completed",
        "encrypted": True,
        "volumeSize": 100,
        "startTime": f"2026-11-27T23:0{3 * number - 3}:00Z",
        "tags": {
            "gitlab-stack": f"{PROJECT['name']}/prod",
            "gitlab-role": role,
            "gitlab-backup": "20261127T230004Z",
            f"{product}-version": version,
        },
    }
    for number, (role, product, version) in enumerate(
        [("server", "gitlab", PROJECT["config"]["gitlabVersion"]["default"]), ("registry", "registry", "2.8.3")], 1
    )
}
"""A backup of another stack, by the IDs of its snapshots."""

NAMED_BY_SETTINGS = (
    "aws:ebs/getVolume:getVolume",
    "aws:ec2/getAmi:getAmi",
    "aws:ec2/getElasticIp:getElasticIp",
    "aws:route53/getZone:getZone",
)


def lists(token: str, filters: Mapping[str, Sequence[str]], existing: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """AWS's lists. `existing` has the `offered` instance types (None: all), the Name of the machine that `holds` the
    volumes, the Name of the `network` that contains the address, the `networkCidr` of the stack's own, `servedTls` if
    the stack's load balancer does, the snapshots from which the stack's own volumes were created (`createdFrom`), by
    Name, the IDs of these volumes (`volumeIds`), their zone (`volumesZone`), and its own load balancer's `addresses`.
    """
    names = filters.get("tag:Name")
    answer: Mapping[str, Any] | None = None
    if token == "aws:ebs/getEbsVolumes:getEbsVolumes":
        volumes = {name: made_of for name, made_of in existing.get("createdFrom", {}).items() if name in (names or ())}
        wanted = filters.get("snapshot-id")
        ids = existing.get("volumeIds", {})
        zones = filters.get("availability-zone")
        if zones and existing.get("volumesZone", zones[0]) not in zones:
            volumes = {}
        found = [name for name, made_of in volumes.items() if wanted is None or made_of in wanted]
        answer = {"ids": [ids.get(name, f"vol-of-{name}") for name in found]}
    elif token == "aws:ec2/getEips:getEips":
        own = filters == {"tag:Name": ["gitlab-balancer-test"], "tag:gitlab-stack": [MARKED["gitlab-stack"]]}
        answer = {"allocationIds": existing.get("addresses", []) if own else []}
    elif token == "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings":
        offered = existing.get("offered")
        answer = {"instanceTypes": [each for each in filters["instance-type"] if offered is None or each in offered]}
    elif token == "aws:ec2/getInstances:getInstances":
        holder = existing.get("holds")
        answer = {"ids": ["i-0123456789abcdef0"] if holder and (names is None or holder in names) else []}
    elif token == "aws:ec2/getSecurityGroups:getSecurityGroups":
        own = filters == {"tag:Name": ["gitlab-balancer-test"], "ip-permission.from-port": ["443"]}
        answer = {"ids": ["sg-0123456789abcdef0"] if own and existing.get("servedTls") else []}
    elif token == "aws:ec2/getVpcs:getVpcs":
        marked = filters.get("tag:gitlab-stack") == [MARKED["gitlab-stack"]]
        if "vpc-id" in filters:
            answer = {"ids": filters["vpc-id"] if marked and existing.get("network") in (names or ()) else []}
        else:
            own = marked and names == ["gitlab-test"]
            block = existing.get("networkCidr")
            answer = {"ids": ["vpc-of-gitlab-test"] if own and block in filters.get("cidr", [block]) and block else []}
    return answer


@dataclass(frozen=True)
class Registered:
    """One resource as the program registered it. `secret_inputs` are the inputs whose value contains a secret."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    secret_inputs: frozenset[str]
    request: Any
    urn: str
    depends_on: frozenset[str]


@dataclass
class Graph:
    """What the program registered and exported."""

    resources: list[Registered] = field(default_factory=list)
    invokes: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    reads: list[tuple[str, str]] = field(default_factory=list)
    """Type and ID of every existing resource that the program reads."""
    outputs: dict[str, Any] = field(default_factory=dict)
    secret_outputs: set[str] = field(default_factory=set)
    error_hooks: dict[str, pulumi.ErrorHook] = field(default_factory=dict)
    shown: list[tuple[str, str]] = field(default_factory=list)
    """Every information that the program shows, and the type of the resource that it is about."""

    def of_type(self, type_name: str) -> list[Registered]:
        return [resource for resource in self.resources if resource.type == type_name]

    def one(self, type_name: str, name: str) -> Registered:
        [found] = [resource for resource in self.of_type(type_name) if resource.name == name]
        return found

    def step(self, name: str) -> Registered:
        return self.one("command:remote:Command", name)

    def asked(self, token: str) -> list[Mapping[str, Any]]:
        """The arguments of every lookup of this kind."""
        return [arguments for asked, arguments in self.invokes if asked == token]

    def comes_after(self, later: Registered, earlier: Registered) -> bool:
        """Whether `later` depends on `earlier`, directly or indirectly."""
        by_urn = {resource.urn: resource for resource in self.resources}
        reached: set[str] = set()
        waiting = [later.urn]
        while waiting:
            urn = waiting.pop()
            if urn in reached:
                continue
            reached.add(urn)
            if urn in by_urn:
                waiting += by_urn[urn].depends_on
        return later is not earlier and earlier.urn in reached


MADE: Mapping[str, Mapping[str, str]] = {
    "aws:ebs/volume:Volume": {"arn": "arn:aws:ec2:eu-central-1:123456789012:volume/{}-id"},
    "aws:ec2/keyPair:KeyPair": {"keyName": "{}"},
    "aws:iam/instanceProfile:InstanceProfile": {"name": "{}-1234567"},
    "aws:lb/loadBalancer:LoadBalancer": {"arn": "arn:aws:elasticloadbalancing:{}"},
    "aws:lb/targetGroup:TargetGroup": {"arn": "arn:aws:elasticloadbalancing:{}"},
}
"""What AWS or Pulumi adds to a new resource, by type; `{}` is its name in the program."""


class Cloud(mocks.Mocks):
    """Responds as AWS and the machines would, with values that show their origin."""

    def __init__(self, existing: Mapping[str, Any] | None, *, preview: bool = False) -> None:
        self.existing = existing
        self.preview = preview
        self.invokes: list[tuple[str, Mapping[str, Any]]] = []

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        self.invokes.append((args.token, args.args))
        existing = self.existing or {}
        filters = {each["name"]: each["values"] for each in args.args.get("filters", ())}
        if (listed := lists(args.token, filters, existing)) is not None:
            return {**args.args, **listed}, []
        if args.token == "aws:ebs/getSnapshot:getSnapshot":
            [snapshot_id] = filters["snapshot-id"]
            snapshots = {**BACKUP, **existing.get("snapshots", {})}
            if self.existing is None or snapshots.get(snapshot_id) is None:
                raise LookupError("Your query returned no results")
            return {**args.args, **snapshots[snapshot_id]}, []
        if args.token in LOOKUPS:
            if self.existing is None and args.token in NAMED_BY_SETTINGS:
                raise LookupError("Your query returned no results")
            return {**args.args, **LOOKUPS[args.token], **existing}, []
        raise NotImplementedError(f"the program invoked {args.token}, which this mock does not answer")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        outputs = dict(args.inputs)
        if self.preview and not args.resource_id:
            return None, outputs
        if args.typ == "command:remote:Command":
            step = args.name.split("-", 1)[1]
            outputs |= {"stdout": STEP_RESULTS.get(step, f"{step} done"), "stderr": ""}
        elif args.typ == "pulumi:index:Stash":
            outputs |= {"output": args.inputs["input"]}
        elif args.typ == "aws:ec2/eip:Eip":
            outputs |= {"publicIp": _address("203.0.113", args.name), "allocationId": f"eipalloc-{args.name}"}
        elif args.typ == "aws:ec2/networkInterface:NetworkInterface":
            outputs |= {"privateIp": _address("10.42.0", args.name)}
        elif args.typ in MADE:
            outputs |= {key: value.format(args.name) for key, value in MADE[args.typ].items()}
        elif args.typ == "aws:acm/certificate:Certificate":
            outputs |= _certificate(args, (self.existing or {}).get("certificate", {}))
        return f"{args.name}-id", outputs


def _certificate(args: mocks.MockResourceArgs, existing: Mapping[str, Any]) -> dict[str, Any]:
    """ACM's description of the certificate in the settings, which `existing` changes, or of a new one."""
    if args.resource_id:
        domain = "git.example.com"
        return {"status": "ISSUED", "domainName": domain, "subjectAlternativeNames": [domain], **existing}
    made: dict[str, Any] = {"arn": f"arn:aws:acm:{args.name}"}
    if requested := args.inputs.get("domainName"):
        option = {
            "domainName": requested,
            "resourceRecordName": f"_0123456789abcdef.{requested}.",
            "resourceRecordType": "CNAME",
            "resourceRecordValue": "_fedcba9876543210.acm-validations.aws.",
        }
        made["domainValidationOptions"] = [option]
    return made


def _address(network: str, name: str) -> str:
    """An address that depends on the name only, not on the order of registration."""
    return f"{network}.{20 + zlib.crc32(name.encode()) % 200}"


class RecordingMonitor(mocks.MockMonitor):
    """Records every registration request."""

    def __init__(self, cloud: Cloud, graph: Graph) -> None:
        super().__init__(cloud)
        self.graph = graph

    def ReadResource(self, request: Any) -> Any:
        self.graph.reads.append((request.type, request.id))
        return super().ReadResource(request)

    def RegisterResource(self, request: Any) -> Any:
        if request.type != "pulumi:pulumi:Stack":
            urn = self.make_urn(request.parent, request.type, request.name)
            if urn in self.resources:
                raise ValueError(f"registered twice: {urn}")
            inputs, secret_inputs = _plain(rpc.deserialize_properties(request.object, keep_unknowns=True))
            depends_on = {request.parent, *request.dependencies}
            for dependencies in request.propertyDependencies.values():
                depends_on |= set(dependencies.urns)
            self.graph.resources.append(
                Registered(
                    request.type, request.name, inputs, secret_inputs, request, urn, frozenset(depends_on - {""})
                )
            )
        return super().RegisterResource(request)


class Engine(mocks.MockEngine):
    """Records what the program shows; its warnings and errors go to Python's log only."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(None)
        self.graph = graph

    def Log(self, request: Any) -> None:
        if request.severity == engine_pb2.INFO:
            self.graph.shown.append((request.message, request.urn.split("::")[2].rpartition("$")[2]))
        super().Log(request)


class Callbacks:
    """Records the callbacks that the program registers with the engine; never calls them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def register_error_hook(self, hook: pulumi.ErrorHook) -> None:
        if hook.name in self.graph.error_hooks:
            raise ValueError(f"registered twice: {hook.name}")
        self.graph.error_hooks[hook.name] = hook


class SameThread(ThreadPoolExecutor):
    """Runs the SDK's requests at once: the mocks answer them without waiting, so threads would only take time.

    Like a new thread, without context variables: the mocks name the stack and project in URNs by default values.
    """

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(contextvars.Context().run(function, *arguments, **named))
        except Exception as error:  # noqa: BLE001, it is raised where the result is read
            done.set_exception(error)
        return done


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits: the mocks' values are plain."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


mocks._sync_await = _at_once  # type: ignore[attr-defined, assignment]  # or each request would run the whole loop within itself

# Only an engine uses the positions in the source of each resource's registration.
resource._get_stack_trace = source_pb2.StackTrace


def _plain(properties: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    secret = frozenset(key for key, value in properties.items() if _holds_secret(value))
    return {key: _unwrapped(value) for key, value in properties.items()}, secret


def _holds_secret(value: Any) -> bool:
    if rpc.is_rpc_secret(value):
        return True
    if isinstance(value, Mapping):
        return any(_holds_secret(item) for item in value.values())
    return isinstance(value, list) and any(_holds_secret(item) for item in value)


def _unwrapped(value: Any) -> Any:
    if rpc.is_rpc_secret(value):
        return _unwrapped(rpc.unwrap_rpc_secret(value))
    if isinstance(value, Mapping):
        return {key: _unwrapped(item) for key, item in value.items()}
    return [_unwrapped(item) for item in value] if isinstance(value, list) else value


@functools.cache
def _stack_file(stack: str) -> Mapping[str, Any]:
    """The configuration in the stack's committed file."""
    config: dict[str, Any] = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    return MappingProxyType(config)


def stack_config(stack: str, **changes: Any) -> dict[str, str]:
    """The configuration that the engine would pass to the program: schema defaults, the stack's file, then `changes`.

    None removes a key.
    """
    values: dict[str, Any] = {
        f"gitlab:{key}": schema["default"] for key, schema in PROJECT["config"].items() if "default" in schema
    }
    values |= _stack_file(stack)
    for key, value in changes.items():
        full_key = key.replace("__", ":") if "__" in key else f"gitlab:{key}"
        values[full_key] = value
    return {key: _config_text(value) for key, value in values.items() if value is not None}


def _config_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else json.dumps(value)


SECRET_KEYS = ("sshPrivateKey", "certificateKeyPem", "initialRootPassword", "smtpPassword", "gitlabRb")


class ChecksPassed(Exception):  # noqa: N818, it is no error
    """The program begins to create resources."""


def _end_before_a_resource(*_arguments: Any, **_named: Any) -> None:
    raise ChecksPassed


def run_program(
    config: Mapping[str, str],
    secret_keys: Sequence[str] = SECRET_KEYS,
    existing: Mapping[str, Any] | None = MappingProxyType({}),
    *,
    only_checks: bool = False,
    preview: bool = False,
) -> Graph:
    """Run the program once, without state of earlier runs, and wait until everything it started has completed.

    `preview`: of a new stack, of whose resources only the inputs are known.

    `only_checks`: end the program before its first resource, when it has accepted its settings and what exists in AWS.

    `secret_keys` are encrypted. `existing` changes AWS's responses to lookups (`LOOKUPS`, `lists`); None: AWS has none
    of the images, volumes, addresses and zones in the settings.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(SameThread())
    # When a program fails, so do its tasks; the program's own error is raised below.
    loop.set_exception_handler(lambda _loop, _context: None)
    graph = Graph()
    cloud = Cloud(existing, preview=preview)
    pulumi.runtime.set_mocks(
        cloud, project=PROJECT["name"], stack="test", preview=preview, monitor=RecordingMonitor(cloud, graph)
    )
    pulumi.runtime.settings.SETTINGS.engine = Engine(graph)
    pulumi.runtime.settings.SETTINGS.callbacks = Callbacks(graph)
    pulumi.runtime.set_all_config(dict(config), [f"gitlab:{key}" for key in secret_keys])
    pulumi.runtime.settings.set_root_resource(None)  # type: ignore[arg-type]  # reset that of the last run

    def main() -> None:
        runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")

    async def program() -> None:
        root = pulumi_stack.Stack(lambda: None)
        pulumi.runtime.settings.set_root_resource(root)
        if only_checks:
            first = unittest.mock.patch.object(pulumi.Resource, "__init__", _end_before_a_resource)
            with first, contextlib.suppress(ChecksPassed):
                await pulumi_stack.run_pulumi_func(main)
            return
        await pulumi_stack.run_pulumi_func(main)
        for key, value in root.outputs.items():
            output = pulumi.Output.from_input(value)
            graph.outputs[key] = await output.future()  # None if it is not known
            if await output.is_secret():
                graph.secret_outputs.add(key)

    try:
        loop.run_until_complete(program())
    finally:
        # A program that failed leaves requests and outputs behind, for which the next one would wait.
        pulumi.runtime.settings.SETTINGS.rpc_manager.clear()
        pulumi.runtime.settings.SETTINGS.outputs.clear()
        loop.close()
    graph.invokes = cloud.invokes
    return graph
