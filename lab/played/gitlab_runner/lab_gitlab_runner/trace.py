"""A job's log: written by the job, masked, and sent to GitLab piece by piece (network/trace.go, common/buildlogger)."""

import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from lab_gitlab_runner import coordinator
from lab_gitlab_runner.coordinator import Runner

MASKED = "[MASKED]"
FIRST_INTERVAL = 3.0  # seconds between two pieces, until GitLab names another
SIGN_OF_LIFE = 30.0  # seconds without output after which GitLab is told that the job still runs
LIMIT = 4096 * 1024  # bytes, output_limit of config.toml
RETRIES, RETRY_DELAY = 10, 1.0

RED, GREEN, CYAN, YELLOW = "\033[31;1m", "\033[32;1m", "\033[36;1m", "\033[0;33m"
RESET, CLEAR = "\033[0;m", "\033[0K"


class Masker:
    """Takes secrets out of whole lines: values of masked variables, and what follows a token's prefix."""

    def __init__(self, phrases: Iterable[str], prefixes: Iterable[str]) -> None:
        self._phrases = sorted({phrase for phrase in phrases if phrase}, key=len, reverse=True)
        alternatives = "|".join(re.escape(prefix) for prefix in prefixes)
        self._tokens = re.compile(rf"((?:{alternatives}))[\w.=-]+") if alternatives else None

    def __call__(self, text: str) -> str:
        for phrase in self._phrases:
            text = text.replace(phrase, MASKED)
        return self._tokens.sub(rf"\g<1>{MASKED}", text) if self._tokens else text


class Trace:
    """`on_cancel` is called when GitLab wants the script to end, `on_abort` when it has given the job up."""

    def __init__(self, runner: Runner, job: dict[str, Any]) -> None:
        self.on_cancel: Callable[[], None] = lambda: None
        self.on_abort: Callable[[], None] = lambda: None
        features = job.get("features") or {}
        masked = (variable["value"] for variable in job["variables"] if variable.get("masked"))
        self._mask = Masker(masked, features.get("token_mask_prefixes") or ())
        self._runner, self._job = runner, job
        self._lock = threading.Lock()
        self._content = b""
        self._unfinished = ""
        self._sent = 0
        self._interval = FIRST_INTERVAL
        self._last = time.monotonic()
        self._over = threading.Event()
        self._sender = threading.Thread(target=self._send_now_and_then, daemon=True)
        self._sender.start()

    # Writing

    def write(self, text: str) -> None:
        """Output as it comes; an unfinished line waits for its end, so that no secret is cut in two."""
        with self._lock:
            complete, newline, self._unfinished = (self._unfinished + text).rpartition("\n")
            self._append(complete + newline)

    def line(self, text: str, colour: str = "", prefix: str = "") -> None:
        """A line of the runner's own."""
        with self._lock:
            self._append(f"{self._unfinished}{colour or CLEAR}{prefix}{text}{RESET}\n")
            self._unfinished = ""

    def warning(self, text: str) -> None:
        self.line(text, YELLOW, "WARNING: ")

    def error(self, text: str) -> None:
        self.line(text, RED, "ERROR: ")

    def section(self, name: str, *, start: bool) -> None:
        with self._lock:
            kind = "start" if start else "end"
            self._append(self._unfinished + f"section_{kind}:{int(time.time())}:{name}\r{CLEAR}")
            self._unfinished = ""

    def _append(self, text: str) -> None:
        if len(self._content) < LIMIT:
            self._content += self._mask(text).encode()
            if len(self._content) >= LIMIT:
                self._content += f"\n{RED}Job's log exceeded limit of {LIMIT} bytes.\n{RESET}".encode()

    # Sending

    def finish(self, state: str, *, reason: str | None = None, exit_code: int = 0) -> None:
        """Send what is left, then how it ended."""
        with self._lock:
            self._append(self._unfinished)
            self._unfinished = ""
        self._over.set()
        self._sender.join()
        for _ in range(RETRIES):
            if self._patch():
                break
            time.sleep(RETRY_DELAY)
        output = {"checksum": f"crc32:{zlib.crc32(self._content):08x}", "bytesize": len(self._content)}
        for _ in range(RETRIES):
            answer = coordinator.update_job(
                self._runner, self._job, state, reason=reason, exit_code=exit_code, output=output
            )
            if answer.status in (200, 403, 404):
                return
            time.sleep(RETRY_DELAY)

    def _send_now_and_then(self) -> None:
        while not self._over.wait(self._interval):
            if self._sent < len(self._content):
                self._patch()
            elif time.monotonic() - self._last >= SIGN_OF_LIFE:
                self._heed(coordinator.update_job(self._runner, self._job, "running"))

    def _patch(self) -> bool:
        """Send the next piece. True when nothing is left, or when GitLab wants nothing more."""
        with self._lock:
            piece, start = self._content[self._sent :], self._sent
        if not piece:
            return True
        answer = coordinator.patch_trace(self._runner, self._job, piece, start)
        if answer.status == 202:
            self._sent = start + len(piece)
        elif answer.status == 416 and answer.range_end is not None:
            self._sent = answer.range_end
        self._heed(answer)
        return answer.status in (403, 404) or self._sent >= len(self._content)

    def _heed(self, answer: coordinator.Answer) -> None:
        self._last = time.monotonic()
        if answer.interval:
            self._interval = float(answer.interval)
        if answer.job_status == "canceling":
            self.on_cancel()
        elif answer.status == 403 or answer.job_status in ("canceled", "failed"):
            self.on_abort()
