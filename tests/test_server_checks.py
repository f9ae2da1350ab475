"""Checks that run on the server, and how long they are retried."""

import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from configuration import checks
from configuration.flows import Place
from configuration.remote_step import ROOT
from programs.acceptance_checks import messages, run, server_checks
from tests.check_runs import PlayedGitLab, check_from


def health_check(status: int, age: float = 0, agent: str = "ELB-HealthChecker/2.0") -> str:
    at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(time.time() - age))
    return f'10.42.0.9 - - [{at}] "GET /-/readiness HTTP/1.1" {status} 15 "" "{agent}" -\n'


@pytest.fixture
def server(gitlab, tmp_path, monkeypatch) -> PlayedGitLab:
    """A healthy server: nginx responds, GitLab is ready, and a health check of the load balancer has just arrived."""
    monkeypatch.setattr(server_checks, "through_nginx", lambda: "HTTP/1.1 200 OK\r\n")
    monkeypatch.setattr(server_checks, "ACCESS_LOG", str(tmp_path / "access.log"))
    (tmp_path / "access.log").write_text(health_check(200) + health_check(404, agent="curl"))
    gitlab.on("GET", r"/-/readiness\?all=1", {"status": "ok"})
    return gitlab


def test_a_server_that_is_well_is_seen_so(server):
    seen = check_from(Place.SERVER)
    assert (seen.status, seen.well) == (0, ["target", "nginx", "readiness", "server-updates"])


@pytest.mark.parametrize(
    ("log", "what"),
    [
        (lambda: "", "contains no health check of the load balancer"),
        (lambda: health_check(200, agent="curl/8"), "contains no health check of the load balancer"),
        (lambda: health_check(200, age=40), "arrived 4[01] s ago"),
        (lambda: health_check(200) + health_check(404), "GitLab returns 404"),
    ],
    ids=["no check ever", "another agent's", "an old one", "a failed one"],
)
def test_a_target_that_is_not_checked_or_refuses_the_check_is_broken(server, tmp_path, log, what):
    (tmp_path / "access.log").write_text(log())
    seen = check_from(Place.SERVER)
    assert seen.status == 1
    assert seen["target"]["state"] == "broken"
    assert re.search(what, seen["target"]["detail"])
    assert "target healthy failed" in seen.stderr
    assert f"What to do: {checks.BY_ID['target'].remedy}" in seen.stderr


NOW = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
OTHER_FORMS = {
    "JSON": f'{{"time":"{NOW}","status":"200","agent":"ELB-HealthChecker/2.0"}}',
    "JSON without an agent": f'{{"time":"{NOW}","status":"200"}}',
    "JSON with a request in it": '{"r":"GET /-/readiness HTTP/1.1","status":200,"agent":"ELB-HealthChecker/2.0"}',
    "brackets without a time": '10.42.0.9 - - [now] "GET /-/readiness HTTP/1.1" 200 1 "ELB-HealthChecker/2.0"',
    "seconds": '[1700000000.123] "GET /-/readiness HTTP/1.1" 200 1 "" "ELB-HealthChecker/2.0"',
    "no such day": '[31/Feb/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1 "" "ELB-HealthChecker/2.0"',
    "no such year": '[0000-01-01T00:00:00+00:00] "GET / HTTP/1.1" 200 1 "" "ELB-HealthChecker/2.0"',
    "no status": f'[{NOW}] "GET /-/readiness HTTP/1.1" "ELB-HealthChecker/2.0"',
    "no agent": f'10.42.0.9 - - [{NOW}] "GET /-/readiness HTTP/1.1" 200 15',
    "no agent, but a referrer": f'10.42.0.9 - - [{NOW}] "GET /-/readiness HTTP/1.1" 200 15 "-"',
    "an agent without quotes": f'10.42.0.9 - - [{NOW}] "GET /-/readiness HTTP/1.1" 200 15 curl/8',
    "tabs": f"{NOW}\t200\tGET\t/-/readiness\tELB-HealthChecker/2.0",
    "bytes": "\udce9\udcff",
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_log_in_another_form_is_said_to_be_unread_and_nobody_is_blamed(server, tmp_path, form):
    (tmp_path / "access.log").write_text(f"{OTHER_FORMS[form]}\n" * 3, errors="surrogateescape")
    seen = check_from(Place.SERVER)
    assert (seen.status, seen.well) == (0, ["target", "nginx", "readiness", "server-updates"])
    assert seen["target"]["detail"].startswith("not checked: ")
    assert not re.search("load balancer|pulumi up", seen.stderr)


@pytest.mark.parametrize("age", [0, 40])
def test_a_time_in_iso_8601_is_read(server, tmp_path, age):
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - age))
    (tmp_path / "access.log").write_text(f'[{at}] "GET /-/readiness HTTP/1.1" 200 1 "" "ELB-HealthChecker/2.0"\n')
    assert check_from(Place.SERVER)["target"]["state"] == ("broken" if age else "ok")


@pytest.mark.parametrize("agent", ['"ELB-HealthChecker/2.0"', "ELB-HealthChecker/2.0"])
def test_an_agent_is_read_without_a_referrer_before_it_and_without_quotes(server, tmp_path, agent):
    times = [time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - age)) for age in (40, 0)]
    lines = [f'[{at}] "GET / HTTP/1.1" 200 1 {agent}\n' for at in times]
    (tmp_path / "access.log").write_text("".join(lines))
    assert check_from(Place.SERVER)["target"]["state"] == "ok"
    (tmp_path / "access.log").write_text(lines[0])
    assert check_from(Place.SERVER)["target"]["state"] == "broken"


def test_a_form_without_agents_is_not_judged_by_the_lines_of_the_form_before(server, tmp_path):
    (tmp_path / "access.log").write_text(health_check(200, age=40) + OTHER_FORMS["no agent"] + "\n")
    assert check_from(Place.SERVER)["target"]["detail"].startswith("not checked: ")


def test_the_newest_line_has_the_form_of_now(server, tmp_path):
    before, after = health_check(200, age=40), OTHER_FORMS["JSON"] + "\n"
    (tmp_path / "access.log").write_text(before + after)
    assert check_from(Place.SERVER)["target"]["state"] == "ok", "the log format has just been changed"
    (tmp_path / "access.log").write_text(after + before)
    assert check_from(Place.SERVER)["target"]["state"] == "broken"


@pytest.mark.parametrize("request_line", ["", "-", "\\x16\\x03\\x01", "\\x22GET\\x22 /"])
def test_a_strangers_malformed_request_is_a_line_like_another(server, tmp_path, request_line):
    line = health_check(400, agent="x").replace("GET /-/readiness HTTP/1.1", request_line)
    (tmp_path / "access.log").write_text(health_check(200, age=40) + line)
    assert check_from(Place.SERVER)["target"]["state"] == "broken"


def test_an_nginx_that_is_silent_is_named_and_not_the_target_that_needs_it(server, monkeypatch):
    def refused(address, timeout):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.undo()
    monkeypatch.setattr(socket, "create_connection", refused)
    seen = check_from(Place.SERVER)
    assert seen["target"]["state"] == "deferred"
    assert seen["nginx"]["state"] == "broken"
    assert "Connection refused" in seen["nginx"]["detail"]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n<html><title>400 The plain HTTP request was sent to HTTPS port</title>",
            ": 400 The plain HTTP request was sent to HTTPS port.",
        ),
        ("HTTP/1.0 400 Bad Request\r\n\r\n", ": 400."),
    ],
)
def test_an_nginx_that_rejects_what_the_load_balancer_sends_is_broken(server, monkeypatch, answer, what):
    monkeypatch.setattr(server_checks, "through_nginx", lambda: answer)
    seen = check_from(Place.SERVER)
    assert (seen.status, seen["target"]["state"]) == (1, "deferred")
    assert (seen["nginx"]["state"], seen["nginx"]["cause"]) == ("broken", "rejected")
    assert seen["nginx"]["detail"] == f"127.0.0.1:80 rejects the load balancer's requests{what}"
    assert f"What to do: {checks.BY_ID['nginx'].remedies['rejected']}\n" in seen.stderr


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Internal Server Error", "502 Bad Gateway"])
def test_an_nginx_that_answers_anything_else_works(server, monkeypatch, status):
    """The checks of readiness and of the login page report errors of GitLab."""
    monkeypatch.setattr(server_checks, "through_nginx", lambda: f"HTTP/1.1 {status}\r\n\r\n400")
    assert "nginx" in check_from(Place.SERVER).well


def test_the_whole_answer_of_nginx_is_read(monkeypatch):
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4096).startswith(b"PROXY TCP4 127.0.0.1 ")
            for part in (b"HTTP/1.1 400 Bad Request\r\n", b"\r\n" + b"x" * 9000, b"the end"):
                connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        connect, address = socket.create_connection, listener.getsockname()
        monkeypatch.setattr(socket, "create_connection", lambda _, timeout: connect(address, timeout))
        assert server_checks.through_nginx().endswith("xthe end")


def test_a_gitlab_that_is_not_ready_is_named_with_what_ails_it_and_not_the_target(server, tmp_path):
    (tmp_path / "access.log").write_text(health_check(503))
    checks = {
        "status": "failed",
        "db_check": [{"status": "ok"}],
        "redis_check": [{"status": "failed", "message": "refused"}],
    }
    server.on("GET", r"/-/readiness\?all=1", checks, status=503)
    seen = check_from(Place.SERVER)
    assert [line["check"] for line in seen.lines if line["state"] == "broken"] == ["readiness"]
    assert seen["readiness"]["detail"] == "GitLab's readiness endpoint returned 503 (redis: refused)."


def test_a_target_whose_check_fails_although_gitlab_is_ready_is_never_taken_for_well(server, tmp_path):
    (tmp_path / "access.log").write_text(health_check(503))
    seen = check_from(Place.SERVER)
    assert seen.status == 1
    assert seen["target"]["state"] == "broken"
    assert "Although GitLab is ready" in seen["target"]["detail"]


def test_a_check_is_waited_for_as_long_as_it_may_take_and_told_about(server, tmp_path, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(messages, "progress", shown.append)
    monkeypatch.setattr(run, "FIRST_PROGRESS_AFTER", 0.1)
    (tmp_path / "access.log").write_text("")
    threading.Timer(0.4, lambda: (tmp_path / "access.log").write_text(health_check(200))).start()
    seen = check_from(Place.SERVER, patience=20)
    assert seen.well == ["target", "nginx", "readiness", "server-updates"]
    assert seen["target"]["seconds"] >= 0.3
    assert len(shown) == 1
    assert re.fullmatch(r"waiting for target healthy, 0 s of 20: .* contains no health check .*", shown[0])


def test_a_word_of_progress_is_one_short_line(tmp_path):
    read, write = os.pipe()
    shows = "from programs.acceptance_checks.messages import progress; progress('a\\nb ' + 'x' * 100000)"
    text = f"import os; os.dup2({write}, 4); {shows}"
    subprocess.run([sys.executable, "-c", text], check=True, pass_fds=[write], cwd=ROOT)
    os.close(write)
    with os.fdopen(read) as pipe:
        line = pipe.read()
    assert line.startswith("a b xxx")
    assert line.count("\n") == 1
    assert len(line) <= 400


def test_an_error_that_nobody_foresaw_is_told_in_one_line_and_never_as_a_broken_check(server, monkeypatch):
    def stumble(_: object) -> None:
        raise KeyError("a key\nin two lines")

    monkeypatch.setattr(server_checks, "nginx_answers", stumble)
    seen = check_from(Place.SERVER)
    assert seen.status == 2
    assert seen.stderr == "Could not check: KeyError: 'a key\\nin two lines'\n"
    assert seen.lines == [{"error": "KeyError: 'a key\\nin two lines'"}]


@pytest.mark.parametrize("stdin", ["", "bm8gSlNPTg==\n"], ids=["nothing", "no task"])
def test_a_program_that_was_told_nothing_of_use_has_not_seen_a_broken_check(stdin):
    command = [sys.executable, "-m", "programs.acceptance_checks", "server"]
    done = subprocess.run(command, input=stdin, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"Could not check: .+\n", done.stderr)
