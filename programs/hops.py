#!/usr/libexec/platform-python
"""hops: walks the hops of the stack that its machine can see, in order, and stops at the first that is broken.

hops.py server|runner|registry looks; `hops.py pipeline`, on the server, runs the acceptance's pipeline, with a token
that lives in this process only and is revoked however it ends. Standard input, each on a line in base64: the task
(configuration/hops.py `task`), and for `pipeline` what `hops.py registry` has told; without that nothing is started.

Prints a line of JSON for each hop, with its state: ok, broken, or left when a later hop decides. What a broken hop
means goes to standard error, what is waited for to file descriptor 4. Exit status: 0 well, 1 broken, 2 could not look.

Needs nothing but Python 3.6 or newer.
"""

import base64
import contextlib
import datetime
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import Any, Callable, Dict, Iterator, List, NoReturn, Optional, Tuple

WELL, BROKEN, CANNOT_LOOK = 0, 1, 2

TIMEOUT = 10  # seconds for one question
AGAIN_AFTER = 1  # seconds between two attempts
FIRST_WORD, NEXT_WORD = 5, 10  # seconds until it is told what is waited for
LONGEST_WORD = 300  # characters; a longer line could stop the engine's display (pulumi-command, 64 KiB)

WORKHORSE = "/var/opt/gitlab/gitlab-workhorse/sockets/socket"
ACCESS_LOG = "/var/log/gitlab/nginx/gitlab_access.log"
LOOKED_AT = 1 << 20  # bytes of its end
CHECK = re.compile(r'\[(?P<time>[^\]]+)\] "GET [^"]*" (?P<status>\d{3}) .*"ELB-HealthChecker/')
FRESH = 12  # seconds; the balancer checks every ten

REGISTRY_FOLDER = "/etc/docker/registry"
REGISTRY_DATA = "/srv/registry"
LEEWAY = 60  # seconds; registry/auth/token/token.go of container-registry 4.15.2

TOKEN_LOCK = "/run/gitlab-stack-acceptance.lock"
REVOCATION = "gitlab-stack-revoke"  # how the names of the timer and of what it starts begin
CONSOLE_LIMIT = 300  # seconds; the console loads all of GitLab
TOKEN_LIFE = "15min"  # until it is revoked by the machine itself, if this process was killed
KEPT = 3  # pipelines and images
BRANCH = "main"


class Broken(Exception):
    """The hop is broken as far as one can see now; the text is what was seen. `final`: waiting does not help."""

    def __init__(self, seen: str, final: bool = False) -> None:
        super().__init__(seen)
        self.final = final


class Left(Exception):
    """A later hop decides: the text says which and why."""


class CannotLook(Exception):
    """Nothing can be said; the text says why."""


Seen = Optional[Tuple[float, str]]
"""Seconds and a note, where a check knows better than the clock how long its hop took."""

Check = Callable[[], Seen]


class Walk:
    """One walk along the hops of a task."""

    def __init__(self, task: Dict[str, Any]) -> None:
        self.stack = task["stack"]
        self.hops = {hop["id"]: hop for hop in task["hops"]}
        self.end = time.monotonic() + task.get("within", float("inf"))

    def hop(self, name: str, check: Check) -> bool:
        """Look until the check is content or the hop's limit is over; a broken hop ends the program.

        Returns whether it is well: false when it was left to a later one. Raises CannotLook when the walk's time is up.
        """
        hop = self.hops[name]
        started = time.monotonic()
        told = started + FIRST_WORD - NEXT_WORD
        while True:
            try:
                seen = check()
            except Left as left:
                report(hop=name, state="left", seconds=0.0, detail=str(left))
                return False
            except Broken as broken:
                waited = time.monotonic() - started
                if broken.final or waited + AGAIN_AFTER > hop["limit"]:
                    self.broken(name, str(broken), waited)
                if time.monotonic() > self.end:
                    raise CannotLook("there was no time left to look at: {}".format(hop["title"])) from None
                if time.monotonic() - told >= NEXT_WORD:
                    told = time.monotonic()
                    tell("waiting for {}, {} s of {}: {}".format(hop["title"], int(waited), hop["limit"], broken))
                time.sleep(AGAIN_AFTER)
            else:
                seconds, note = seen or (time.monotonic() - started, "")
                report(hop=name, state="ok", seconds=round(seconds, 3), detail=note)
                return True

    def broken(self, name: str, seen: str, waited: float = 0.0) -> NoReturn:
        """Report a broken hop and end the program."""
        hop = self.hops[name]
        report(hop=name, state="broken", seconds=round(waited, 3), detail=seen)
        print("The stack is up but does not work: {} is broken.".format(hop["title"]), file=sys.stderr)
        print("{} {}".format(hop["broken"], seen), file=sys.stderr)
        print("What to do: {}".format(hop["remedy"]), file=sys.stderr)
        sys.exit(BROKEN)


def report(**line: Any) -> None:
    print(json.dumps(line, sort_keys=True), flush=True)


def tell(text: str) -> None:
    """A word about what is waited for, where somebody listens."""
    with contextlib.suppress(OSError):
        os.write(4, (" ".join(text.split())[:LONGEST_WORD] + "\n").encode())


Answer = Tuple[int, Message, bytes]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def fetch(url: str, headers: Optional[Dict[str, str]] = None) -> Answer:
    """Status, headers and body of a GET, not by way of a proxy. Raises Broken when there is no answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=TIMEOUT) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"{url}: {trouble(error)}") from None


def expect(url: str, status: int) -> None:
    answered = fetch(url)[0]
    if answered != status:
        raise Broken(f"{url} answers {answered} instead of {status}.")


def trouble(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, socket.timeout):
        return f"no answer within {TIMEOUT} s."
    return "%s." % (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__)


def run(*command: str, input: str = "", **environment: str) -> Tuple[int, str]:
    """Exit status of a command and all it has said. Raises Broken when there is none, or not in time."""
    try:
        done = subprocess.run(
            command,
            input=input.encode(),
            env=dict(os.environ, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise Broken("{}: no answer within {} s.".format(" ".join(command[:2]), 2 * TIMEOUT)) from None
    except FileNotFoundError:
        raise Broken(f"{command[0]} is not installed.") from None
    return done.returncode, done.stdout.decode(errors="replace").strip()


def last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1]


# What the server sees.


class UnixConnection(http.client.HTTPConnection):
    """HTTP over GitLab's own socket: port 80 answers only what comes through the balancer."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_gitlab(method: str, path: str, headers: Optional[Dict[str, str]] = None, body: Optional[str] = None) -> Answer:
    """Raises Broken when GitLab does not answer."""
    connection = UnixConnection(WORKHORSE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"{WORKHORSE}: {trouble(error)}") from None
    finally:
        connection.close()


def through_nginx() -> str:
    """What nginx says to a connection that comes as from the balancer; empty when it says nothing."""
    try:
        with socket.create_connection(("127.0.0.1", 80), timeout=TIMEOUT) as connection:
            connection.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 80\r\nGET /-/health HTTP/1.0\r\n\r\n")
            return connection.recv(64).decode(errors="replace")
    except OSError as error:
        raise Broken(f"127.0.0.1:80: {trouble(error)}") from None


def nginx_answers() -> Seen:
    if not through_nginx().startswith("HTTP/1."):
        raise Broken("127.0.0.1:80 takes the connection and says nothing.")
    return None


def last_check(lines: List[str], now: float) -> Optional[Tuple[float, int]]:
    """Age in seconds and status of the balancer's latest health check in an access log."""
    for line in reversed(lines):
        found = CHECK.search(line)
        if found:
            at = datetime.datetime.strptime(found.group("time"), "%d/%b/%Y:%H:%M:%S %z")
            return now - at.timestamp(), int(found.group("status"))
    return None


def target_healthy() -> Seen:
    """By the log of what arrives: no machine can ask AWS."""
    try:
        nginx_answers()
    except Broken:
        raise Left("nginx does not answer, so no health check can be seen") from None
    try:
        with open(ACCESS_LOG, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOOKED_AT))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise Broken(f"{ACCESS_LOG}: {trouble(error)}") from None
    latest = last_check(lines, time.time())
    if latest is None:
        raise Broken(f"No health check of the balancer is in {ACCESS_LOG}.")
    age, status = latest
    if age > FRESH:
        raise Broken(f"The balancer's last health check arrived {int(age)} s ago.")
    if status >= 500:
        raise Left(f"the balancer's health checks arrive and are answered with {status}")
    if status != 200:
        raise Broken(f"The balancer's health checks arrive and are answered with {status}.")
    return None


def ready() -> Seen:
    status, _, body = ask_gitlab("GET", "/-/readiness?all=1")
    if status != 200:
        raise Broken(f"GitLab's readiness is {status}{not_well(body)}.")
    return None


def not_well(body: bytes) -> str:
    """What a readiness answer names as not well."""
    with contextlib.suppress(ValueError, AttributeError):
        checks = json.loads(body.decode())
        named = []
        for name, results in sorted(checks.items()):
            if isinstance(results, list):
                named += [
                    "{}: {}".format(name.replace("_check", ""), result.get("message") or result["status"])
                    for result in results
                    if result.get("status") != "ok"
                ]
        return " ({})".format("; ".join(named)) if named else ""
    return ""


def look_from_server(walk: Walk) -> None:
    decided = walk.hop("target", target_healthy)
    walk.hop("nginx", nginx_answers)
    walk.hop("readiness", ready)
    if not decided:

        def healthy_by_now() -> Seen:
            try:
                return target_healthy()
            except Left as left:
                raise Broken(f"Although GitLab is ready, {left}.") from None

        walk.hop("target", healthy_by_now)


# What the runner's machine sees.


def look_from_runner(walk: Walk) -> None:
    stack = walk.stack
    url, host = stack["external_url"], stack["host"]
    registry = "{}:{}".format(host, stack["registry_port"])

    def name_resolves() -> Seen:
        if re.match(r"[\d.]+$", host):
            return None
        status, said = run("getent", "ahostsv4", host)
        addresses = sorted({line.split()[0] for line in said.splitlines()}) if status == 0 else []
        if addresses != [stack["balancer_address"]]:
            leads = "leads to {}".format(", ".join(addresses)) if addresses else "does not resolve"
            raise Broken("{} {}; the balancer has {}.".format(host, leads, stack["balancer_address"]))
        return None

    def balancer_answers() -> Seen:
        seen = []
        for port in (stack["web_port"], stack["registry_port"], 22):
            try:
                socket.create_connection((stack["balancer_address"], port), timeout=TIMEOUT / 3).close()
                return None
            except OSError as error:
                seen.append(f"port {port}: {trouble(error)}")
        raise Broken(" ".join(seen))

    def readiness_hidden() -> Seen:
        address = url + "/-/readiness"
        answered = fetch(address)[0]
        if answered != 404:
            # Only a readiness that is shown is proof: a lost packet or a balancer's 502 passes.
            raise Broken(f"{address} answers {answered} instead of 404.", final=answered == 200)
        return None

    def git_over_ssh() -> Seen:
        _, said = run("ssh-keyscan", "-T", "5", "-t", "ed25519", host)
        if "SSH-2.0-GitLab-SSHD" not in said or " " + stack["git_ssh_host_key"] not in said:
            raise Broken("{} shows: {}.".format(host, " / ".join(said.splitlines())[:240] or "nothing"))
        return None

    def issuer_answers() -> Seen:
        wrong = base64.b64encode(b"nobody:not-a-password").decode()
        issuer = f"{url}/jwt/auth"
        status, _, _ = fetch(issuer + "?service=container_registry", {"Authorization": "Basic " + wrong})
        if status not in (401, 403):
            raise Broken(f"{issuer} answers {status} to a wrong credential.")
        return None

    def registry_answers() -> Seen:
        address = "{}://{}/v2/".format(url.split(":")[0], registry)
        status, headers, _ = fetch(address)
        if status != 401:
            raise Broken(f"{address} answers {status} instead of 401.")
        challenge = headers.get("WWW-Authenticate") or ""
        if f'realm="{url}/jwt/auth"' not in challenge:
            raise Broken(f"{address} sends for tokens to: {challenge}.")
        return None

    def runner_runs() -> Seen:
        for service in ("docker", "gitlab-runner"):
            status, said = run("systemctl", "is-active", service)
            if status != 0:
                raise Broken(f"The service {service} is {said}.")
        status, said = run("docker", "version", "--format", "{{.Server.Version}}")
        if status != 0:
            raise Broken(f"Docker does not answer: {last_line(said)}.")
        return None

    def docker_knows_registry() -> Seen:
        folder = tempfile.mkdtemp()
        try:
            status, said = run(
                *("docker", "login", "--username", "nobody", "--password-stdin", registry),
                input="not-a-password\n",
                DOCKER_CONFIG=folder,
            )
        finally:
            shutil.rmtree(folder)
        if status == 0 or not re.search("denied|unauthorized", said, re.IGNORECASE):
            raise Broken(f"docker login with a wrong credential says: {last_line(said)}.")
        return None

    def token_valid() -> Seen:
        # It ends well also when GitLab does not answer: only its words tell.
        _, said = run("gitlab-runner", "verify")
        if "is valid" not in said and "is alive" not in said:
            told = [line for line in said.splitlines() if "erify" in line] or [last_line(said)]
            raise Broken("gitlab-runner verify says: {}.".format(re.sub(r"\x1b\[[0-9;]*m", "", told[0]).strip()))
        return None

    walk.hop("name", name_resolves)
    walk.hop("balancer", balancer_answers)
    walk.hop("sign-in", lambda: expect(url + "/users/sign_in", 200))
    walk.hop("hidden", readiness_hidden)
    walk.hop("git-ssh", git_over_ssh)
    walk.hop("issuer", issuer_answers)
    walk.hop("registry", registry_answers)
    walk.hop("process", runner_runs)
    walk.hop("docker", docker_knows_registry)
    walk.hop("online", token_valid)


# What the registry's machine can tell.


def key_id(public_key: str) -> str:
    """The id of a public key in PEM, as GitLab and the registry write it (GitLab's lib/json_web_token/rsa_token.rb)."""
    der = base64.b64decode("".join(line for line in public_key.splitlines() if not line.startswith("-----")))
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    return ":".join(text[i : i + 4] for i in range(0, len(text), 4))


def look_at_registry(walk: Walk) -> None:
    """Nothing here is a hop by itself; it tells apart what else looks the same from outside."""
    told: Dict[str, Any] = {"issuer": None, "service": None, "keys": [], "used_percent": None}
    with contextlib.suppress(OSError):
        with open(os.path.join(REGISTRY_FOLDER, "config.yml")) as file:
            settings = dict(re.findall(r"^ +(\w+): +(\S+)$", file.read(), re.MULTILINE))
        told.update(issuer=settings.get("issuer"), service=settings.get("service"))
    with contextlib.suppress(OSError), open(os.path.join(REGISTRY_FOLDER, "gitlab-registry.crt")) as file:
        for certificate in re.findall("-----BEGIN CERT.*?-----END CERT[^\n]*", file.read(), re.DOTALL):
            status, said = run("openssl", "x509", "-pubkey", "-noout", input=certificate + "\n")
            told["keys"] += [key_id(said)] if status == 0 else []
    with contextlib.suppress(OSError):
        disk = os.statvfs(REGISTRY_DATA)
        told["used_percent"] = round(100 - 100 * disk.f_bavail / disk.f_blocks)
    report(facts=told)


# What the server does with a token.


def token_issued(walk: Walk, console: str) -> Dict[str, Any]:
    """A token for the acceptance's project, and what GitLab knows of the runner. Raises CannotLook."""
    call = ["gitlab-rails", "runner", console, "issue", walk.stack["project"], walk.stack["runner_name"]]
    limit = min(CONSOLE_LIMIT, walk.end - time.monotonic())
    try:
        done = subprocess.run(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=limit)
    except subprocess.TimeoutExpired:
        raise CannotLook(f"GitLab's console did not answer within {limit:.0f} s") from None
    answer = last_line(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or not answer.startswith("{"):
        raise CannotLook("GitLab's console made no token; the lines above say why")
    issued: Dict[str, Any] = json.loads(answer)
    return issued


def revoke_later(walk: Walk, console: str) -> None:
    """The machine itself revokes the token if this process is killed."""
    revoke_no_more()
    # A name of its own: systemd has no second unit of the name of one that is not quite gone.
    unit = f"{REVOCATION}-{os.getpid()}"
    timer = ["systemd-run", "--quiet", "--collect", "--unit", unit, "--on-active", TOKEN_LIFE]
    timer += ["/usr/bin/gitlab-rails", "runner", console, "revoke", walk.stack["project"]]
    subprocess.run(timer, check=True)


def revoke_no_more() -> None:
    """End the timer of a killed process too, and a revocation under way: the next token's maker revokes it as well."""
    subprocess.run(["systemctl", "stop", REVOCATION + "*"], stderr=subprocess.DEVNULL)


class Project:
    """The acceptance's project, by GitLab's API."""

    def __init__(self, path: str, token: str) -> None:
        self.path = "/api/v4/projects/" + urllib.parse.quote(path, safe="")
        self.token = token

    def call(self, method: str, path: str, body: Any = None, allowed: Tuple[int, ...] = (200, 201, 202, 204)) -> Any:
        """What the API answers, from JSON where it is JSON. Raises Broken for any status that is not allowed."""
        headers = {"PRIVATE-TOKEN": self.token, "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        status, answered, content = ask_gitlab(method, path, headers, sent)
        text = content.decode(errors="replace")
        if status not in allowed:
            raise Broken(f"GitLab answers {method} {path} with {status}: {text[:200]}.")
        return json.loads(text) if text and "json" in (answered.get("Content-Type") or "") else text

    def get(self, path: str) -> Any:
        return self.call("GET", self.path + path)

    def keep(self, files: Dict[str, str]) -> None:
        """Commit what differs from these files."""
        actions = []
        for name, content in sorted(files.items()):
            path = "{}/repository/files/{}/raw?ref={}".format(self.path, urllib.parse.quote(name, safe=""), BRANCH)
            status, _, found = ask_gitlab("GET", path, {"PRIVATE-TOKEN": self.token})
            if status == 200 and found.decode(errors="replace") == content:
                continue
            actions.append({"action": "update" if status == 200 else "create", "file_path": name, "content": content})
        if actions:
            message = "The acceptance of this stack, as its Pulumi program has it"
            commit = {"branch": BRANCH, "commit_message": message, "actions": actions}
            self.call("POST", self.path + "/repository/commits", commit)

    def clean(self) -> None:
        """Keep the latest pipelines and images only."""
        for pipeline in self.get("/pipelines?per_page=100&order_by=id&sort=desc")[KEPT:]:
            self.call("DELETE", "{}/pipelines/{}".format(self.path, pipeline["id"]))
        for repository in self.get("/registry/repositories?per_page=100"):
            tags = "/registry/repositories/{}/tags".format(repository["id"])
            numbers = [tag["name"] for tag in self.get(tags + "?per_page=100") if tag["name"].isdigit()]
            for name in sorted(numbers, key=int, reverse=True)[KEPT:]:
                self.call("DELETE", self.path + tags + "/" + name)

    def revoke(self) -> None:
        """The token ends itself."""
        self.call("DELETE", "/api/v4/personal_access_tokens/self", allowed=(204, 401))


class Pipeline:
    """A pipeline that runs."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.id = int(project.call("POST", project.path + "/pipeline", {"ref": BRANCH})["id"])

    def job(self, name: str) -> Dict[str, Any]:
        for job in self.project.get(f"/pipelines/{self.id}/jobs?per_page=100"):
            if job["name"] == name:
                return dict(job)
        raise Broken(f"The pipeline has no job {name} yet.")

    def trace(self, job: Dict[str, Any]) -> str:
        return str(self.project.get("/jobs/{}/trace".format(job["id"])))

    def cancel(self) -> None:
        self.project.call("POST", f"{self.project.path}/pipelines/{self.id}/cancel")

    def taken(self, name: str) -> Seen:
        job = self.job(name)
        if job["status"] in ("created", "pending", "preparing", "waiting_for_resource"):
            raise Broken("The job is {}.".format(job["status"]))
        if job["status"] != "running" and "section_start" not in self.trace(job):
            raise Broken(self.failure(job), final=True)
        return float(job.get("queued_duration") or 0.0), ""

    def cloned(self, name: str) -> Seen:
        job = self.job(name)
        trace = self.trace(job)
        section = re.search(r"section_start:(\d+):get_sources.*?section_end:(\d+):get_sources", trace, re.DOTALL)
        begun = re.search("section_start:[0-9]+:(step_script|build_script)", trace)
        if section and (begun or job["status"] == "success"):
            return float(int(section.group(2)) - int(section.group(1))), "whole seconds"
        if job["status"] not in ("running", "pending"):
            raise Broken(self.failure(job), final=True)
        raise Broken("The job has not cloned its project yet.")

    def marked(self, name: str, mark: str) -> Seen:
        """The job's own word for a hop: `hop NAME ok SECONDS [NOTE]` or `hop NAME broken WHY`."""
        job = self.job(name)
        trace = self.trace(job)
        # A runner may put the time before each line (FF_TIMESTAMPS).
        found = re.search(rf"(?:^| )hop {mark} (ok|broken) ?(.*)$", trace, re.MULTILINE)
        if found and found.group(1) == "ok":
            seconds, _, note = found.group(2).strip().partition(" ")
            return float(seconds), note
        if found:
            raise Broken(found.group(2).strip(), final=True)
        if job["status"] in ("failed", "canceled", "skipped", "success"):
            raise Broken(self.failure(job), final=True)
        raise Broken("The job {} is {}.".format(name, job["status"]))

    def failure(self, job: Dict[str, Any]) -> str:
        trace = re.sub(r"\x1b\[[0-9;]*[mK]|section_\w+:\d+:\w+|\r", "", self.trace(job))
        lines = [line for line in trace.splitlines() if line.strip()]
        return "The job {} is {} ({}). Its log ends: {}".format(
            *(job["name"], job["status"], job.get("failure_reason") or "no reason given"),
            " / ".join(lines[-3:]),
        )


def claims_of(token: str) -> Dict[str, Any]:
    """Header and claims of a JSON web token, unchecked."""
    parts = [
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()) for part in token.split(".")[:2]
    ]
    return dict(parts[0], **parts[1])


def differences(claims: Dict[str, Any], facts: Dict[str, Any], registry_time: Optional[float]) -> List[str]:
    """Why a registry of these facts and this clock refuses a token of these claims; key, issuer, audience, clock."""
    found = []
    if facts.get("keys") and claims.get("kid") not in facts["keys"]:
        found.append(
            "Key: GitLab signs with {}, the registry trusts {}.".format(claims.get("kid"), ", ".join(facts["keys"]))
        )
    if facts.get("issuer") and claims.get("iss") != facts["issuer"]:
        found.append("Issuer: GitLab is {}, the registry trusts {}.".format(claims.get("iss"), facts["issuer"]))
    if facts.get("service") and claims.get("aud") not in (facts["service"], [facts["service"]]):
        found.append("Audience: the token is for {}, the registry is {}.".format(claims.get("aud"), facts["service"]))
    if registry_time is not None:
        off = registry_time - float(claims.get("iat", registry_time))
        if abs(off) > LEEWAY:
            found.append(
                "Clock: the registry is {} s {} GitLab.".format(round(abs(off)), "before" if off > 0 else "behind")
            )
    return found


def token_accepted(walk: Walk, token: str, facts: Dict[str, Any]) -> Seen:
    """A token of GitLab's at the registry's own address, without the balancer between."""
    basic = base64.b64encode(("acceptance:" + token).encode()).decode()
    status, _, body = ask_gitlab("GET", "/jwt/auth?service=container_registry", {"Authorization": "Basic " + basic})
    if status != 200:
        raise Broken(f"GitLab's token issuer answers {status} to a valid credential.")
    signed = json.loads(body.decode())["token"]
    address = "http://{}:{}/v2/".format(walk.stack["registry_private_address"], walk.stack["registry_port"])
    status, headers, _ = fetch(address, {"Authorization": "Bearer " + signed})
    try:
        there = datetime.datetime.strptime(headers.get("Date") or "", "%a, %d %b %Y %H:%M:%S GMT")
        registry_time: Optional[float] = there.replace(tzinfo=datetime.timezone.utc).timestamp()
    except ValueError:
        registry_time = None
    why = differences(claims_of(signed), facts, registry_time)
    if status != 200 or why:
        reasons = " ".join(why) or "Neither key, issuer, audience nor clock differ."
        raise Broken(f"{address} answers {status}. {reasons}", final=bool(why))
    return None


def run_pipeline(walk: Walk, task: Dict[str, Any]) -> None:
    with one_at_a_time():
        revoke_later(walk, task["console"])
        tell("asking GitLab's console for a token")
        issued = token_issued(walk, task["console"])
        project = Project(walk.stack["project"], issued["token"])
        try:
            go = told_line()
            if go is None:
                raise CannotLook("nothing was to be started")
            walk.hop("accepted", lambda: token_accepted(walk, project.token, go["facts"]))
            if go.get("pipeline", True):
                walk_pipeline(walk, task["files"], project, issued["runner"], go["facts"])
        finally:
            try:
                project.revoke()
                revoke_no_more()
            except Broken as broken:
                print(f"the token will be revoked within {TOKEN_LIFE}: {broken}", file=sys.stderr)


def walk_pipeline(
    walk: Walk, files: Dict[str, str], project: Project, runner: Optional[Dict[str, Any]], facts: Dict[str, Any]
) -> None:
    """From what GitLab knows of the runner to an image that was pulled."""
    if runner is None:
        walk.broken("online", "GitLab has no runner of the name {}.".format(walk.stack["runner_name"]))
    if not runner["active"]:
        walk.broken("online", "GitLab has the runner {} paused.".format(walk.stack["runner_name"]))
    try:
        project.keep(files)
        pipeline = Pipeline(project)
    except Broken as broken:
        walk.broken("taken", str(broken))
    try:
        walk.hop("taken", lambda: pipeline.taken("push"))
        walk.hop("clone", lambda: pipeline.cloned("push"))
        walk.hop("job-token", lambda: pipeline.marked("push", "job-token"))
        walk.hop("push", lambda: explained(lambda: pipeline.marked("push", "push"), facts))
        walk.hop("pull", lambda: pipeline.marked("pull", "pull"))
    except BaseException:
        with contextlib.suppress(Broken):
            pipeline.cancel()
        raise
    try:
        project.clean()
    except Broken as broken:
        print(f"old pipelines and images are still there: {broken}", file=sys.stderr)


def explained(check: Check, facts: Dict[str, Any]) -> Seen:
    """A push that fails on a full volume says so."""
    try:
        return check()
    except Broken as broken:
        used = facts.get("used_percent")
        if used is not None and used >= 99:
            raise Broken(f"{broken} The registry's data volume is full ({used} percent).", broken.final) from None
        raise


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    with open(TOKEN_LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotLook("the acceptance's pipeline is being run by somebody else at this moment") from None
        yield


def told_line() -> Optional[Dict[str, Any]]:
    """The next line of standard input; None when there is none."""
    line = sys.stdin.readline()
    return dict(json.loads(base64.b64decode(line).decode())) if line.strip() else None


def ended(*_: Any) -> NoReturn:
    sys.exit(CANNOT_LOOK)


def could_not_look(why: str) -> int:
    """Say why. Returns the exit status."""
    with contextlib.suppress(OSError):  # nobody listens any more
        report(unseen=why)
    print(f"Could not look: {why}", file=sys.stderr)
    return CANNOT_LOOK


def main(view: str) -> int:
    """Walk the hops of one view. Returns the exit status, which is that of a broken hop for nothing else."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signal_number, ended)
    try:
        task = told_line()
        if task is None:
            raise CannotLook("no task on standard input")
        walk = Walk(task)
        if view == "pipeline":
            run_pipeline(walk, task)
        else:
            {"server": look_from_server, "runner": look_from_runner, "registry": look_at_registry}[view](walk)
    except (CannotLook, Broken) as reason:
        return could_not_look(str(reason))
    except Exception as error:  # Python's own exit status would be that of a broken hop
        return could_not_look("{}: {}".format(type(error).__name__, " ".join(str(error).split())))
    # So that whoever repeats what follows a walk sees that there was another one.
    report(walked_at=datetime.datetime.now(datetime.timezone.utc).isoformat())
    return WELL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
