"""A job's log: masked, and sent to GitLab in parts (network/trace.go, common/buildlogger)."""

import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from lab_gitlab_runner import coordinator
from lab_gitlab_runner.configuration import Runner
from lab_gitlab_runner.log import RED, RESET, YELLOW

FIRST_INTERVAL = 3.0  # seconds between two parts, until GitLab sends another interval
SIGN_OF_LIFE = 30.0  # seconds without output after which the runner reports that the job is running
RETRIES, RETRY_DELAY = 10, 1.0
GREEN, CYAN, CLEAR = "\033[32;1m", "\033[36;1m", "\033[0K"


class Trace:
    """The log of one job. `on_cancel` is called if GitLab cancels the job or no longer accepts it."""

    def __init__(self, runner: Runner, job: dict[str, Any]) -> None:
        self.on_cancel: Callable[[], None] = lambda: None
        masked = {variable["value"] for variable in job["variables"] if variable.get("masked")}
        self._masked = sorted(filter(None, masked), key=len, reverse=True)
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
        """Append output; an incomplete line is held back until its end, so that no secret is split."""
        with self._lock:
            complete, newline, self._unfinished = (self._unfinished + text).rpartition("\n")
            self._append(complete + newline)

    def line(self, text: str, colour: str = CLEAR) -> None:
        """Append a line of the runner itself."""
        self._insert(f"{colour}{text}{RESET}\n")

    def warning(self, text: str) -> None:
        self.line(f"WARNING: {text}", YELLOW)

    def error(self, text: str) -> None:
        self.line(f"ERROR: {text}", RED)

    def section(self, name: str, *, start: bool) -> None:
        self._insert(f"section_{'start' if start else 'end'}:{int(time.time())}:{name}\r{CLEAR}")

    def _insert(self, text: str) -> None:
        with self._lock:
            self._append(self._unfinished + text)
            self._unfinished = ""

    def _append(self, text: str) -> None:
        for phrase in self._masked:
            text = text.replace(phrase, "[MASKED]")
        self._content += text.encode()

    # Sending

    def finish(self, state: str, **more: object) -> None:
        """Send the rest of the log, then the final state."""
        self._insert("")
        self._over.set()
        self._sender.join()
        self._repeat(self._patch)
        output = {"checksum": f"crc32:{zlib.crc32(self._content):08x}", "bytesize": len(self._content)}
        more |= {"output": output, "checksum": output["checksum"]}
        self._repeat(lambda: coordinator.update_job(self._runner, self._job, state, **more).status in (200, 403, 404))

    def _repeat(self, sends: Callable[[], bool]) -> None:
        for _ in range(RETRIES):
            if sends():
                return
            time.sleep(RETRY_DELAY)

    def _send_now_and_then(self) -> None:
        while not self._over.wait(self._interval):
            if self._sent < len(self._content):
                self._patch()
            elif time.monotonic() - self._last >= SIGN_OF_LIFE:
                self._heed(coordinator.update_job(self._runner, self._job, "running"))

    def _patch(self) -> bool:
        """Send the next part. True if nothing is left, or if GitLab accepts no more."""
        with self._lock:
            piece, start = self._content[self._sent :], self._sent
        if not piece:
            return True
        answer = coordinator.patch_trace(self._runner, self._job, piece, start)
        if answer.status == 202:
            self._sent = start + len(piece)
        elif answer.status == 416:
            # A response was lost; GitLab reports how much it has received.
            self._sent = int(answer.headers.get("Range", "0-0").partition("-")[2])
        self._heed(answer)
        return answer.status in (403, 404) or self._sent >= len(self._content)

    def _heed(self, answer: coordinator.Answer) -> None:
        self._last = time.monotonic()
        self._interval = float(answer.headers.get("X-GitLab-Trace-Update-Interval") or self._interval)
        if answer.status == 403 or answer.job_status in ("canceling", "canceled", "failed"):
            self.on_cancel()
