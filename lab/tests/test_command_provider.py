"""The stand-in for the command plugin, compared with the real plugin's behaviour on an SSH server on loopback.

If `LAB_PARTS` contains the real plugin, the same tests run with it, too.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from lab import parts, versions
from lab.engine import ssh
from lab.engine.command_provider import REPLACING, VERSION, CommandProvider
from lab.engine.properties import (
    ARCHIVE,
    ASSET,
    SECRET,
    SIGNATURE,
    UNKNOWN,
    differences,
    from_message,
    plain,
    root,
    secret,
    to_message,
)
from lab.workspace import ROOT

LOCAL = "command:local:Command"
REMOTE = "command:remote:Command"
COPY = "command:remote:CopyToRemote"

CLIENT_KEY = asyncssh.generate_private_key("ssh-ed25519")
# With one round of the key derivation: the default of 128 takes seconds.
ENCRYPTED_KEY = CLIENT_KEY.export_private_key(passphrase="word", rounds=1, ignore_few_rounds=True).decode()
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"

HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")

Kind = provider_pb2.PropertyDiff


class RefusedError(Exception):
    """The error that the engine receives instead of a response."""


class Context:
    async def abort(self, code, details):
        raise RefusedError(details)


class Engine:
    def __init__(self):
        self.log: list[tuple[str, str]] = []

    async def Log(self, request):
        severity = engine_pb2.LogSeverity.Name(request.severity).lower()
        self.log.append(("status" if request.ephemeral else severity, request.message))

    @property
    def status(self):
        return [text for severity, text in self.log if severity == "status"]


def unknowns_as_secrets(value):
    """Normalize unknown secrets: a plugin that supports output values writes them in an equivalent form."""
    if isinstance(value, list):
        return [unknowns_as_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get(SIGNATURE) == OUTPUT:
        assert set(value) == {SIGNATURE, "secret"}
        return secret(UNKNOWN)
    return {name: unknowns_as_secrets(item) for name, item in value.items()}


class RealProvider(engine_pb2_grpc.EngineServicer):
    """The real plugin in a separate process, with the interface of CommandProvider."""

    def __init__(self, program, engine):
        self._engine = engine
        self._server = grpc.server(ThreadPoolExecutor())
        engine_pb2_grpc.add_EngineServicer_to_server(self, self._server)
        address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        self._process = subprocess.Popen([program, address], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._channel = grpc.insecure_channel(f"127.0.0.1:{int(self._process.stdout.readline())}")
        self._stub = provider_pb2_grpc.ResourceProviderStub(self._channel)
        self._stub.Configure(provider_pb2.ConfigureRequest(acceptSecrets=True))

    def Log(self, request, context):
        asyncio.run(self._engine.Log(request))
        return empty_pb2.Empty()

    def __getattr__(self, name):
        async def call(request, context):
            try:
                return await asyncio.to_thread(getattr(self._stub, name), request)
            except grpc.RpcError as error:
                raise RefusedError(error.details()) from None

        return call

    def stop(self):
        self._channel.close()
        self._process.kill()
        self._process.communicate()
        self._server.stop(grace=None)


class Plugin:
    """The plugin as the engine uses it: each method is one call, after Check if the engine calls it."""

    real: Path | None = None
    running: ClassVar[list[RealProvider]] = []

    def __init__(self, token):
        self.engine = Engine()
        self.token = token
        self.provider: Any = CommandProvider(self.engine)  # type: ignore[arg-type]
        if self.real is not None:
            self.provider = RealProvider(self.real, self.engine)
            self.running.append(self.provider)
        self.common = {"urn": f"urn:pulumi:lab::gitlab::{token}::step", "type": token, "name": "step"}

    async def check(self, inputs):
        request = provider_pb2.CheckRequest(news=to_message(inputs), **self.common)
        response = await self.provider.Check(request, Context())
        failures = [(failure.property, failure.reason) for failure in response.failures]
        return unknowns_as_secrets(from_message(response.inputs)), failures

    async def checked(self, inputs):
        found, failures = await self.check(inputs)
        assert not failures
        return found

    async def diff(self, old, new):
        olds = to_message(old)
        request = provider_pb2.DiffRequest(id="step1", olds=olds, old_inputs=olds, news=to_message(new), **self.common)
        return await self.provider.Diff(request, Context())

    async def create(self, inputs, *, preview=False, timeout=0.0):
        properties = to_message(await self.checked(inputs))
        request = provider_pb2.CreateRequest(properties=properties, preview=preview, timeout=timeout, **self.common)
        response = await self.provider.Create(request, Context())
        self.id = response.id
        return from_message(response.properties)

    async def update(self, state, inputs, *, preview=False):
        news = to_message(await self.checked(inputs))
        request = provider_pb2.UpdateRequest(olds=to_message(state), news=news, preview=preview, **self.common)
        return from_message((await self.provider.Update(request, Context())).properties)

    async def delete(self, state):
        request = provider_pb2.DeleteRequest(properties=to_message(state), **self.common)
        await self.provider.Delete(request, Context())


@contextlib.asynccontextmanager
async def ssh_server(*, refused_variables=(), **options):
    """Run an SSH server that executes commands in a shell on this machine; yields the connection to it."""
    clients = set()

    async def run(process):
        clients.add(process.get_extra_info("connection"))
        if process.command == "die":
            process.exit_with_signal("KILL", msg="out of memory")
            return
        if process.command == "vanish":
            process.get_extra_info("connection").abort()
            return
        shell = await asyncio.create_subprocess_shell(
            process.command,
            env={**os.environ, **process.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await shell.communicate(await process.stdin.read())
        process.stdout.write(stdout)
        process.stderr.write(stderr)
        process.exit(shell.returncode)

    class Channel(asyncssh.channel.SSHServerChannel):  # type: ignore[misc]
        def _process_env_request(self, packet):
            accepted = super()._process_env_request(packet)
            return accepted and not {name.decode() for name in self.get_environment_bytes()} & set(refused_variables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncssh.connection, "SSHServerChannel", Channel)
        keys = asyncssh.import_authorized_keys(CLIENT_KEY.export_public_key().decode())
        server = await asyncssh.create_server(
            options.pop("server", asyncssh.SSHServer),
            "127.0.0.1",
            0,
            server_host_keys=[HOST_KEY],
            authorized_client_keys=keys,
            process_factory=run,
            sftp_factory=True,
            encoding=None,
        )
        async with server:
            yield {
                "host": "127.0.0.1",
                "port": server.get_port(),
                "user": "ec2-user",
                "privateKey": CLIENT_KEY.export_private_key().decode(),
                "dialErrorLimit": 0,
                **options,
            }
            for client in clients:
                client.abort()


REAL = parts.find(parts.COMMAND_PLUGIN)


@pytest.fixture(autouse=True, params=["played", *(["real"] if REAL else [])])
def which(request, monkeypatch):
    """The plugin under test."""
    monkeypatch.setattr(Plugin, "real", REAL if request.param == "real" else None)
    yield request.param
    while Plugin.running:
        Plugin.running.pop().stop()


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ssh, "RETRY_DELAY", 0.001)
    monkeypatch.setattr(ssh, "RETRY_MAX_DELAY", 0.001)


# Check, diff, preview


def inside(failure):
    """The message about one failure in the connection."""
    ending = "" if "'; got" in failure else " on 'remote.Connection'"
    return f"An error occurred decoding 'CommandInputs.connection': 1 failures decoding:\n\t{failure}{ending}"


PORT_IS_TEXT = "port: Field 'port' on 'remote.Connection' must be a 'float64'; got 'string' instead"


def copying(source):
    return {"connection": {"host": "h"}, "remotePath": "/x", "source": source}


def test_a_connection_gets_the_plugins_defaults_and_is_secret():
    checked = asyncio.run(Plugin(REMOTE).checked({"create": "id", "connection": {"host": "h", "privateKey": "k"}}))
    assert checked["create"] == "id"
    assert checked["connection"][SIGNATURE] == SECRET
    assert checked["connection"]["value"]["privateKey"] == secret("k")
    assert plain(checked["connection"]) == {
        "host": "h",
        "privateKey": "k",
        "user": "root",
        "port": 22,
        "dialErrorLimit": 10,
        "perDialTimeout": 15,
    }


@pytest.mark.parametrize(
    ("token", "inputs", "failures"),
    [
        (REMOTE, {"create": "id"}, {"connection": "Missing required field 'connection' on 'remote.CommandInputs'"}),
        (REMOTE, {"connection": {"user": "root"}}, {"connection": inside("host: Missing required field 'host'")}),
        (REMOTE, {"connection": {"host": "h", "port": "22"}}, {"connection": inside(PORT_IS_TEXT)}),
        (REMOTE, {"connection": {"host": "h", "key": 1}}, {"connection": inside("key: Unrecognized field 'key'")}),
        (
            LOCAL,
            {"create": 5},
            {"create": "Field 'create' on 'local.CommandInputs' must be a 'string'; got 'float64' instead"},
        ),
        (LOCAL, {"creat": "id"}, {"creat": "Unrecognized field 'creat' on 'local.CommandInputs'"}),
        (
            LOCAL,
            {"environment": {"A": 1}},
            {
                "environment[A] value": "Field 'environment[A] value' on 'local.CommandInputs' must be a 'string'; "
                "got 'float64' instead"
            },
        ),
        (
            COPY,
            {"connection": {"host": "h"}, "remotePath": "/x"},
            {
                "source": "Missing required field 'source' on 'remote.CopyToRemoteInputs'",
                "asset": "either asset or archive must be set",
            },
        ),
        (COPY, copying(UNKNOWN), {"asset": "either asset or archive must be set"}),
        (
            COPY,
            copying({SIGNATURE: ASSET, "uri": "u"}),
            {"asset": "asset must be a path-based file asset or a text asset"},
        ),
    ],
)
def test_what_is_missing_or_of_another_type_or_unknown_is_named(token, inputs, failures):
    assert dict(asyncio.run(Plugin(token).check(inputs))[1]) == failures


@pytest.mark.parametrize(
    ("token", "inputs", "key"),
    [
        (REMOTE, {"connection": {"host": "h", "proxy": {"host": "p"}}}, "connection.proxy"),
        (LOCAL, {"create": "id", "assetPaths": ["*"]}, "assetPaths"),
    ],
)
def test_what_only_the_real_plugin_can_do_is_named(token, inputs, key, which):
    _, failures = asyncio.run(Plugin(token).check(inputs))
    assert [name for name, _ in failures] == ([key] if which == "played" else [])


def test_a_connection_that_is_not_known_yet_is_a_secret_all_the_same():
    checked = asyncio.run(Plugin(REMOTE).checked({"create": "id", "connection": UNKNOWN}))
    assert checked == {"create": "id", "connection": secret(UNKNOWN)}


def test_an_input_that_is_null_is_none():
    assert asyncio.run(Plugin(LOCAL).checked({"create": "id", "stdin": None})) == {"create": "id"}


def test_differences_are_paths_into_the_inputs():
    old = {"environment": {"A": "1", "B": "2", "a.b": "3"}, "triggers": ["1"], "create": "x", "stdin": "s"}
    new = {"environment": {"A": "1", "B": "4"}, "triggers": ["2", "3"], "create": "x", "stdin": secret("s")}
    assert dict(differences(old, new)) == {
        'environment["a.b"]': Kind.DELETE,
        "environment.B": Kind.UPDATE,
        "stdin": Kind.UPDATE,
        "triggers[0]": Kind.UPDATE,
        "triggers[1]": Kind.ADD,
    }
    assert [root(path) for path in ('environment["a.b"]', "environment.B", "stdin", "triggers[0]")] == [
        "environment",
        "environment",
        "stdin",
        "triggers",
    ]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ({}, {}, {}),
        ({}, {"create": "y"}, {"create": Kind.UPDATE}),
        ({}, {"create": secret("x")}, {"create": Kind.UPDATE}),
        ({"stdin": "s"}, {}, {"stdin": Kind.DELETE}),
        ({"environment": {"A": "1"}}, {"environment": {"A": "2"}}, {"environment.A": Kind.UPDATE}),
        ({}, {"triggers": ["1"]}, {"triggers": Kind.ADD_REPLACE}),
        ({"triggers": ["1"]}, {}, {"triggers": Kind.DELETE_REPLACE}),
        ({"triggers": ["1"]}, {"triggers": ["2"]}, {"triggers[0]": Kind.UPDATE}),
        ({"triggers": ["1"]}, {"triggers": ["1", "2"]}, {"triggers[1]": Kind.ADD}),
        ({"triggers": ["1"]}, {"triggers": UNKNOWN}, {"triggers": Kind.UPDATE_REPLACE}),
    ],
)
def test_any_change_is_an_update_and_only_triggers_as_a_whole_replaces(old, new, changed):
    found = asyncio.run(Plugin(LOCAL).diff({"create": "x", **old}, {"create": "x", **new}))
    assert {path: detail.kind for path, detail in found.detailedDiff.items()} == changed
    assert found.changes == (found.DIFF_SOME if changed else found.DIFF_NONE)
    assert list(found.replaces) == ["triggers" for kind in changed.values() if kind in REPLACING.values()]
    assert set(found.diffs) == {root(path) for path in changed}


def test_a_preview_runs_nothing_and_leaves_the_outputs_unknown(tmp_path):
    mark = tmp_path / "ran"

    async def scenario():
        plugin = Plugin(LOCAL)
        inputs = {"create": f"touch {mark}", "stdin": secret("s")}
        return inputs, await plugin.create(inputs, preview=True)

    inputs, created = asyncio.run(scenario())
    assert created == {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "stdout"),
    [
        ({"create": "another"}, UNKNOWN),
        ({"create": UNKNOWN}, UNKNOWN),
        ({"environment": {"A": "2"}}, UNKNOWN),
        ({"environment": None}, UNKNOWN),
        ({"stdin": UNKNOWN}, UNKNOWN),
        ({"stdin": "new"}, "old"),
        ({"delete": "new"}, "old"),
        ({}, "old"),
    ],
)
def test_a_preview_of_an_update_keeps_the_output_until_what_the_last_run_had_changes(changes, stdout):
    inputs = {"create": "x", "environment": {"A": "1"}}
    state = {**inputs, "stdout": "old", "stderr": ""}
    updated = asyncio.run(Plugin(LOCAL).update(state, {**inputs, **changes}, preview=True))
    assert updated["stdout"] == stdout


# Commands on this machine


def test_a_local_command_gets_its_input_environment_and_folder(tmp_path):
    async def scenario():
        plugin = Plugin(LOCAL)
        inputs = {
            "create": "cat; echo; echo $NAME; pwd; echo; echo warned >&2",
            "environment": {"NAME": "world"},
            "stdin": secret("typed"),
            "dir": str(tmp_path),
        }
        state = await plugin.create(inputs)
        assert plugin.id.startswith("step")
        assert len(plugin.id) == len("step") + 8
        return state, plugin.engine.status

    state, status = asyncio.run(scenario())
    assert state["stdin"] == secret("typed")
    assert state["stdout"] == f"typed\nworld\n{tmp_path}\n"  # only one newline is removed
    assert state["stderr"] == "warned"
    assert sorted(status) == sorted(["typed", "world", str(tmp_path), "", "warned"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"create": 'echo "out"; exit 3'}, 'exit status 3: running "echo \\"out\\"; exit 3":\nout\n'),
        ({"create": "kill -9 $$"}, 'signal: killed: running "kill -9 $$":\n'),
        ({"create": "kill -40 $$"}, 'signal: signal 40: running "kill -40 $$":\n'),
        (
            {"create": "exit 3 # \t\a\v\x7f\u2028é"},
            'exit status 3: running "exit 3 # \\t\\a\\v\\x7f\\u2028é":\n',
        ),
        (
            {"create": "x", "interpreter": ["absent"]},
            'exec: "absent": executable file not found in $PATH: running "x":\n',
        ),
        ({"create": "x", "dir": "/dev/null"}, 'fork/exec /bin/sh: not a directory: running "x":\n'),
        ({"create": "printf '\\377'"}, "grpc: error while marshaling: string field contains invalid UTF-8"),
        ({"create": "x", "dir": "/absent"}, 'chdir /absent: no such file or directory: running "x":\n'),
        ({"create": "x", "interpreter": ["/absent"]}, 'fork/exec /absent: no such file or directory: running "x":\n'),
    ],
)
def test_a_failed_local_command_says_how_it_ended_and_what_it_wrote(inputs, message):
    with pytest.raises(RefusedError) as refused:
        asyncio.run(Plugin(LOCAL).create(inputs))
    assert str(refused.value) == message


def test_the_resources_timeout_kills_a_local_command():
    with pytest.raises(RefusedError, match="signal: killed"):
        asyncio.run(Plugin(LOCAL).create({"create": "exec sleep 60"}, timeout=1))


def test_an_update_runs_update_or_else_create_and_knows_the_output_before():
    async def scenario(inputs):
        state = {"stdout": "before", "stderr": "", "create": "x"}
        return (await Plugin(LOCAL).update(state, inputs))["stdout"]

    create = 'echo "create $PULUMI_COMMAND_STDOUT"'
    assert asyncio.run(scenario({"create": create})) == "create before"
    assert asyncio.run(scenario({"create": create, "update": "echo update"})) == "update"
    assert asyncio.run(scenario({"create": create, "addPreviousOutputInEnv": False})) == "create "
    assert asyncio.run(scenario({"delete": "true"})) == "before"


def test_without_a_create_command_the_outputs_are_empty():
    state = asyncio.run(Plugin(LOCAL).create({"delete": "true"}))
    assert (state["stdout"], state["stderr"]) == ("", "")


# Commands on another machine


def test_a_remote_command_gets_its_input_and_gives_its_output():
    async def scenario():
        async with ssh_server() as connection:
            plugin = Plugin(REMOTE)
            inputs = {"create": "cat; echo end; echo warned >&2", "stdin": "a\nb\n", "connection": connection}
            return await plugin.create(inputs), plugin.engine.status

    state, status = asyncio.run(scenario())
    assert (state["stdout"], state["stderr"]) == ("a\nb\nend", "warned")
    assert sorted(status) == ["a", "b", "end", "warned"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo out; echo err >&2; exit 3", "Process exited with status 3: running"),
        ("vanish", 'wait: remote command exited without exit status or exit signal: running "vanish"'),
        ("die", 'Process exited with status 137 from signal KILL. Reason was: out of memory: running "die"'),
    ],
)
def test_a_failed_remote_command_says_how_it_ended_and_what_it_wrote(command, message):
    async def scenario():
        async with ssh_server() as connection:
            await Plugin(REMOTE).create({"create": command, "connection": connection})

    with pytest.raises(RefusedError) as refused:
        asyncio.run(scenario())
    assert str(refused.value).startswith(message)
    assert "echo" not in command or {"out", "err"} <= set(str(refused.value).splitlines())


def test_a_session_that_is_cut_does_not_stop_the_remote_command(tmp_path):
    """For example if the plugin is killed: the next run meets the orphaned command, which still runs."""
    started, cut, ended = (tmp_path / name for name in ("started", "cut", "ended"))
    command = f"touch {started}; until [ -e {cut} ]; do sleep 0.02; done; touch {ended}"

    async def until(file):
        async with asyncio.timeout(10):
            while not file.exists():
                await asyncio.sleep(0.02)

    async def scenario():
        async with ssh_server() as connection:
            step = asyncio.create_task(Plugin(REMOTE).create({"create": command, "connection": connection}))
            await until(started)
            step.cancel()
            with pytest.raises(asyncio.CancelledError):
                await step
            cut.touch()
            await until(ended)

    asyncio.run(scenario())


def test_delete_goes_by_the_connection_in_the_state(tmp_path):
    async def scenario():
        async with ssh_server() as connection:
            plugin = Plugin(REMOTE)
            inputs = {"delete": f"touch {tmp_path}/gone", "connection": connection}
            await plugin.delete(await plugin.create(inputs))

    asyncio.run(scenario())
    assert (tmp_path / "gone").exists()


def other_host_key():
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hostKey": other_host_key()}, "after 0 failed attempts: ssh: handshake failed: ssh: host key mismatch"),
        ({"hostKey": "nonsense"}, "failed to parse host key: ssh: no key found"),
        (
            {"privateKey": asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()},
            (
                "after 0 failed attempts: ssh: handshake failed: ssh: unable to authenticate, "
                "attempted methods [none publickey], no supported methods remain"
            ),
        ),
        (
            {"privateKey": ENCRYPTED_KEY},
            "ssh: this private key is passphrase protected",
        ),
        (
            {"privateKey": ENCRYPTED_KEY, "privateKeyPassword": "x"},
            "x509: decryption password incorrect",
        ),
        ({"privateKey": "nonsense"}, "ssh: no key found"),
        ({"agentSocketPath": "/absent"}, "dial unix /absent: connect: no such file or directory"),
    ],
)
def test_a_connection_that_cannot_be_trusted_is_refused(changes, message):
    async def scenario():
        async with ssh_server(**changes) as connection:
            await Plugin(REMOTE).create({"create": "true", "connection": connection})

    with pytest.raises(RefusedError) as refused:
        asyncio.run(scenario())
    assert str(refused.value) == message


def test_a_pinned_host_key_a_password_and_an_encrypted_key_are_accepted():
    class Server(asyncssh.SSHServer):  # type: ignore[misc]
        def password_auth_supported(self):
            return True

        def validate_password(self, username, password):
            return (username, password) == ("ec2-user", "right")

    async def scenario(**changes):
        async with ssh_server(server=Server, **changes) as connection:
            given = {name: value for name, value in connection.items() if value is not None}
            return (await Plugin(REMOTE).create({"create": "echo in", "connection": given}))["stdout"]

    host_key = HOST_KEY.export_public_key().decode()
    assert asyncio.run(scenario(hostKey=host_key)) == "in"
    assert asyncio.run(scenario(hostKey=f"# of\n127.0.0.1 {host_key}")) == "in"
    assert asyncio.run(scenario(privateKey=None, password="right")) == "in"
    assert asyncio.run(scenario(privateKey=ENCRYPTED_KEY, privateKeyPassword="word")) == "in"


def test_dialling_is_repeated_as_often_as_the_limit_says():
    async def scenario():
        async with ssh_server() as connection:
            free_port = connection["port"]
        plugin = Plugin(REMOTE)
        connection = {"host": "127.0.0.1", "port": free_port, "dialErrorLimit": 2}
        with pytest.raises(RefusedError) as refused:
            await plugin.create({"create": "true", "connection": connection})
        return free_port, str(refused.value), plugin.engine.status

    port, message, status = asyncio.run(scenario())
    assert message == f"after 2 failed attempts: dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert status == ["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]


def test_dialling_without_a_limit_ends_with_the_resources_timeout_or_an_interrupt():
    async def scenario(interrupt):
        plugin = Plugin(REMOTE)
        inputs = {"create": "true", "connection": {"host": "127.0.0.1", "port": 1, "dialErrorLimit": -1}}
        dialling = asyncio.create_task(plugin.create(inputs, timeout=60 if interrupt else 1))
        if interrupt:
            async with asyncio.timeout(10):
                while not plugin.engine.status:
                    await asyncio.sleep(0.02)
            await plugin.provider.Cancel(empty_pb2.Empty(), Context())
        with pytest.raises(RefusedError) as refused:
            await dialling
        assert plugin.engine.status[0] == "Dial 1/inf failed: retrying"
        return str(refused.value)

    async def scenarios():
        return await asyncio.gather(scenario(interrupt=False), scenario(interrupt=True))

    assert asyncio.run(scenarios()) == ["context deadline exceeded", "context canceled"]


def test_a_server_that_accepts_and_says_nothing_is_waited_for_whatever_the_timeouts_say():
    async def scenario():
        accepted = []
        server = await asyncio.start_server(lambda reader, writer: accepted.append(writer), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        connection = {"host": host, "port": port, "perDialTimeout": 1, "dialErrorLimit": 0}
        dialling = asyncio.create_task(Plugin(REMOTE).create({"create": "true", "connection": connection}, timeout=1))
        _, waiting = await asyncio.wait([dialling], timeout=1.3)
        assert waiting
        server.close()
        accepted[0].transport.abort()
        with pytest.raises(RefusedError, match="ssh: handshake failed"):
            await dialling

    asyncio.run(scenario())


def test_the_connection_of_a_command_stays_until_the_plugin_ends():
    events = []

    class Server(asyncssh.SSHServer):  # type: ignore[misc]
        def connection_lost(self, error):
            events.append("lost")

    async def scenario():
        async with ssh_server(server=Server) as connection:
            await Plugin(REMOTE).create({"create": "true", "connection": connection})
            await asyncio.sleep(0.2)
            assert not events

    asyncio.run(scenario())


def test_nothing_is_logged_after_the_resources_timeout():
    async def scenario():
        async with ssh_server() as connection:
            plugin = Plugin(REMOTE)
            state = await plugin.create({"create": "sleep 1.2; echo done", "connection": connection}, timeout=1)
            return state["stdout"], plugin.engine.log

    assert asyncio.run(scenario()) == ("done", [])


def test_a_variable_that_the_server_refuses_fails_before_the_command_runs(tmp_path):
    async def scenario():
        async with ssh_server(refused_variables=["NAME"]) as connection:
            plugin = Plugin(REMOTE)
            inputs = {"create": f"touch {tmp_path}/ran", "environment": {"NAME": "x"}, "connection": connection}
            with pytest.raises(RefusedError) as refused:
                await plugin.create(inputs)
            return str(refused.value), plugin.engine.log

    message, log = asyncio.run(scenario())
    assert message == 'could not set environment variable "NAME": ssh: setenv failed'
    assert [severity for severity, text in log if "AcceptEnv" in text] == ["error"]
    assert not (tmp_path / "ran").exists()


def test_the_output_before_is_sent_if_the_server_takes_it():
    async def scenario(*refused):
        async with ssh_server(refused_variables=refused) as connection:
            plugin = Plugin(REMOTE)
            state = {"stdout": "before", "stderr": "", "connection": connection}
            inputs = {"create": 'echo "$PULUMI_COMMAND_STDOUT$NAME"', "connection": connection}
            updated = await plugin.update(state, {**inputs, "environment": {"NAME": "!"}})
            return updated["stdout"], [severity for severity, _ in plugin.engine.log if severity != "status"]

    assert asyncio.run(scenario()) == ("before!", [])
    # asyncssh's server keeps a refused variable, so only the warning shows the refusal.
    assert asyncio.run(scenario("PULUMI_COMMAND_STDOUT"))[1] == ["warning"]


@pytest.mark.parametrize(
    ("logging", "status"),
    [("none", []), ("stdout", ["out"]), ("stderr", ["err"]), ("stdoutAndStderr", ["err", "out"])],
)
def test_only_the_streams_that_are_asked_for_are_logged(logging, status):
    async def scenario():
        plugin = Plugin(LOCAL)
        state = await plugin.create({"create": "echo out; echo err >&2", "logging": logging})
        return state["stdout"], sorted(plugin.engine.status)

    assert asyncio.run(scenario()) == ("out", status)


def test_a_logged_line_at_which_the_real_plugin_would_hang_is_an_error(which):
    if which == "real":
        return  # it would hang
    command = "head -c 70000 /dev/zero | tr '\\0' x"
    with pytest.raises(RefusedError, match="set logging to none"):
        asyncio.run(Plugin(LOCAL).create({"create": command}))
    state = asyncio.run(Plugin(LOCAL).create({"create": command, "logging": "none"}))
    assert len(state["stdout"]) == 70000


# Copies


def copy(connection, target, **source):
    return {"connection": connection, "remotePath": str(target), "source": source}


def test_a_file_a_text_and_a_folder_are_copied(tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    target = tmp_path / "target"

    async def scenario():
        async with ssh_server() as connection:
            plugin = Plugin(COPY)
            file = {SIGNATURE: ASSET, "path": str(source / "sub" / "file")}
            await plugin.create(copy(connection, target / "made" / "renamed", **file))
            await plugin.create(copy(connection, target / "made", **file))
            await plugin.create(copy(connection, target / "text", **{SIGNATURE: ASSET, "text": "typed"}))
            await plugin.create(copy(connection, target / "with", **{SIGNATURE: ARCHIVE, "path": str(source)}))
            await plugin.create(copy(connection, target / "without", **{SIGNATURE: ARCHIVE, "path": f"{source}/"}))
            with pytest.raises(RefusedError, match="is a directory; when using a text asset"):
                await plugin.create(copy(connection, target, **{SIGNATURE: ASSET, "text": "typed"}))
            with pytest.raises(RefusedError, match="no such file or directory"):
                await plugin.create(copy(connection, target / "x", **{SIGNATURE: ASSET, "path": "/absent"}))

    asyncio.run(scenario())
    copied = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert copied == {
        "made/renamed": "content",
        "made/file": "content",
        "text": "typed",
        "with/source/sub/file": "content",
        "without/sub/file": "content",
    }


def test_a_copy_is_repeated_only_for_another_content_or_place(tmp_path):
    target = tmp_path / "target"

    def source(text, digest):
        return {SIGNATURE: ASSET, "text": text, "hash": digest}

    async def scenario():
        async with ssh_server() as connection:
            plugin = Plugin(COPY)
            state = await plugin.create(copy(connection, target, **source("one", "1")))
            target.unlink()
            state = await plugin.update(state, copy({**connection, "user": "root"}, target, **source("one", "1")))
            assert not target.exists()
            await plugin.update(state, copy(connection, target, **source("two", "2")))

    asyncio.run(scenario())
    assert target.read_text() == "two"


# The process


def test_what_the_lab_does_not_play_is_refused_by_name(which):
    if which == "real":
        return
    with pytest.raises(RefusedError, match="command:remote:CopyFile is not supported"):
        asyncio.run(Plugin("command:remote:CopyFile").check({}))
    request = provider_pb2.InvokeRequest(tok="command:local:run")
    with pytest.raises(RefusedError, match="command:local:run is not supported"):
        asyncio.run(Plugin(LOCAL).provider.Invoke(request, Context()))


def test_the_plugin_serves_until_it_is_interrupted():
    program = "from lab.engine.command_provider import main; main()"
    command = [sys.executable, "-c", program, "127.0.0.1:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as plugin:
        assert plugin.stdout is not None
        port = int(plugin.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            assert stub.GetPluginInfo(empty_pb2.Empty(), timeout=5).version == "1.2.1"
            configured = stub.Configure(provider_pb2.ConfigureRequest(), timeout=5)
            assert configured.acceptSecrets
            assert configured.supportsPreview
        plugin.send_signal(signal.SIGINT)
        _, errors = plugin.communicate(timeout=5)
        assert (plugin.returncode, errors) == (0, "")


def test_the_stand_in_has_the_version_of_the_pinned_package():
    assert versions.PULUMI_COMMAND == VERSION
    assert f"pulumi-command=={VERSION}" in Path(ROOT, "requirements.in").read_text()
