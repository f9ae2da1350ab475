"""The language host, tested over the real protocol with a test double of the resource monitor and of the engine."""

import signal
import subprocess
import sys
import textwrap
from concurrent import futures

import grpc
import pytest
from google.protobuf import empty_pb2, json_format
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from lab.engine.language_host import LanguageHost
from lab.workspace import ROOT


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Accepts every registration and stores the stack's outputs."""

    def __init__(self):
        self.registered: list[str] = []
        self.outputs: dict[str, object] = {}

    def SupportsFeature(self, request, context):
        return resource_pb2.SupportsFeatureResponse(hasSupport=False)

    def RegisterResource(self, request, context):
        self.registered.append(request.type)
        urn = f"urn:pulumi:lab::trial::{request.type}::{request.name}"
        return resource_pb2.RegisterResourceResponse(urn=urn, object=request.object)

    def RegisterResourceOutputs(self, request, context):
        self.outputs = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(self, request, context):
        return empty_pb2.Empty()


class Engine(engine_pb2_grpc.EngineServicer):
    """Stores the errors, and other messages apart from them."""

    def __init__(self):
        self.errors: list[str] = []
        self.messages: list[str] = []

    def Log(self, request, context):
        if request.severity == engine_pb2.ERROR:
            self.errors.append(request.message)
        elif request.severity != engine_pb2.DEBUG:
            self.messages.append(request.message)
        return empty_pb2.Empty()


class Run:
    """Runs programs with the language host and gives access to the monitor and the engine."""

    def __init__(self, folder, address, monitor, engine):
        self.folder, self.address, self.monitor, self.engine = folder, address, monitor, engine

    def __call__(self, program, *, config=None, preview=False):
        return LanguageHost(self.address).Run(self.request(program, config=config, preview=preview), None)

    def request(self, program, *, config=None, preview=False):
        if program is not None:
            (self.folder / "__main__.py").write_text(textwrap.dedent(program))
        return language_pb2.RunRequest(
            project="trial",
            stack="lab",
            pwd=str(self.folder),
            monitor_address=self.address,
            config=config or {},
            dryRun=preview,
            parallel=2,
            info=language_pb2.ProgramInfo(
                root_directory=str(self.folder), program_directory=str(self.folder), entry_point="."
            ),
        )


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monitor, engine = Monitor(), Engine()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Run(tmp_path, f"127.0.0.1:{port}", monitor, engine)
    server.stop(0.5).wait()


def test_a_program_runs_with_its_config_in_its_folder_and_exports(run):
    (run.folder / "parts.py").write_text("value = 'from a module'")
    response = run(
        """
        import os, sys
        import pulumi
        import parts

        pulumi.export("config", pulumi.Config().require("key"))
        pulumi.export("module", parts.value)
        pulumi.export("folder", os.getcwd())
        pulumi.export("preview", pulumi.runtime.is_dry_run())
        pulumi.export("stack", f"{pulumi.get_project()}/{pulumi.get_stack()}")
        """,
        config={"trial:key": "set"},
        preview=True,
    )
    assert response == language_pb2.RunResponse()
    assert run.monitor.registered == ["pulumi:pulumi:Stack"]
    assert run.monitor.outputs == {
        "config": "set",
        "module": "from a module",
        "folder": str(run.folder),
        "preview": True,
        "stack": "trial/lab",
    }


def test_a_second_run_in_the_process_sees_the_programs_files_anew(run):
    program = "import pulumi, again; again.seen.append(1); pulumi.export('seen', [again.name, len(again.seen)])"
    (run.folder / "again.py").write_text("name, seen = 'first', []")
    run(program, preview=True)
    assert run.monitor.outputs == {"seen": ["first", 1]}
    (run.folder / "again.py").write_text("name, seen = 'other', []")
    run(program)
    assert run.monitor.outputs == {"seen": ["other", 1]}


def test_a_refusal_reaches_the_user_as_its_message_alone(run):
    response = run("import pulumi; raise pulumi.RunError('adminCidrs: the world is refused')")
    assert run.engine.errors == ["adminCidrs: the world is refused"]
    assert response.bail


def test_a_bug_reaches_the_user_as_a_traceback_of_the_program(run):
    response = run(
        """
        def look_up():
            return {}["absent"]

        look_up()
        """
    )
    assert response.bail
    (error,) = run.engine.errors
    lines = error.splitlines()
    assert lines[:2] == ["Program failed with an unhandled exception:", "Traceback (most recent call last):"]
    assert lines[2].strip() == f'File "{run.folder}/__main__.py", line 5, in <module>'
    assert lines[-1] == "KeyError: 'absent'"
    assert "language_host" not in error


def test_a_bug_in_an_apply_reaches_the_user_too(run):
    assert run("import pulumi; pulumi.Output.from_input(0).apply(lambda zero: 1 / zero)").bail
    assert run.engine.errors[0].endswith("ZeroDivisionError: division by zero\n")


def test_a_program_may_leave_early_but_not_with_an_error(run):
    assert not run("import sys; sys.exit(0)").bail
    assert run("import sys; sys.exit(3)").bail
    assert run.engine.errors == ["Program exited with non-zero exit code: 3"]


def test_a_missing_program_is_named(run):
    assert run(None).bail
    assert run.engine.errors == [f"unable to find main python program `__main__.py` in `{run.folder}`"]


def test_an_engine_that_is_gone_is_not_reported(run):
    run.address = "127.0.0.1:1"
    assert run("import pulumi").bail
    assert run.engine.errors == []


def test_the_host_sends_messages_to_the_engine_that_started_it_until_it_is_interrupted(run):
    request = run.request("""
        import pulumi

        pulumi.Output.from_input("two").apply(lambda line: pulumi.log.info(f"one\\n{line}"))
    """)
    command = [sys.executable, "-c", "from lab.engine.language_host import main; main()", run.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as host:
        assert host.stdout is not None
        port = int(host.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = language_pb2_grpc.LanguageRuntimeStub(channel)
            assert stub.Handshake(language_pb2.LanguageHandshakeRequest(), timeout=5) is not None
            assert stub.About(language_pb2.AboutRequest(), timeout=5).executable == sys.executable
            assert not stub.Run(request, timeout=20).bail
        assert run.engine.messages == ["one\ntwo"]
        host.send_signal(signal.SIGINT)
        _, errors = host.communicate(timeout=5)
        assert (host.returncode, errors) == (0, "")
