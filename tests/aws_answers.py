"""AWS for tests of the recovery commands: real clients of boto3, which check what is sent, and answers of the test."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

REGION = "eu-central-1"


@functools.cache  # making a client takes most of a test's time
def _client(service: str, region: str) -> Any:
    return boto3.client(service, region_name=region)


class Aws:
    """Returns clients of services, which all tests share: the last instance that returned a client answers its calls.

    `answers` has the answer of each call, or a function of its parameters; a call without one returns empty lists.
    `calls` has what was sent.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, service: str, region: str = REGION) -> Any:
        client = _client(service, region)
        for event, handler in (("before-parameter-build", self._record), ("before-call", self._answer)):
            client.meta.events.unregister(event, unique_id=event)
            client.meta.events.register(event, handler, unique_id=event)
        return client

    def sent(self, call: str) -> list[dict[str, Any]]:
        return [parameters for name, parameters in self.calls if name == call]

    def _record(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, dict(params)))

    def _answer(self, model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        answer = self.answers.get(model.name, {})
        if callable(answer):
            answer = answer(self.calls[-1][1])
        if isinstance(answer, ClientError):
            return SimpleNamespace(status_code=400), answer.response
        members = model.output_shape.members if model.output_shape else {}
        unknown = set(answer) - set(members)
        assert not unknown, f"{model.name} returns no {unknown}"
        return SimpleNamespace(status_code=200), {
            **{name: [] for name, shape in members.items() if shape.type_name == "list"},
            **answer,
        }


def failure(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "call")


def once(*answers: Any) -> Callable[[dict[str, Any]], Any]:
    """One answer after the other; the last one again and again."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def tags(**named: str) -> list[dict[str, str]]:
    """Tags as AWS returns them; an underscore in a name is a hyphen."""
    return [{"Key": key.replace("_", "-"), "Value": value} for key, value in named.items()]
