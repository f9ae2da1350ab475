"""config.toml and the machine's system id next to it."""

import datetime
import hashlib
import hmac
import json
import os
import re
import secrets
import string
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_gitlab_runner import known_keys, log

ROOT = Path(os.environ.get("LAB_ROOT", "/"))
DEFAULT_CHECK_INTERVAL = 3.0  # seconds
SYSTEM_ID = re.compile(r"[sr]_[0-9a-zA-Z]{12}")
DEFAULTS: dict[str, Any] = {
    "concurrent": 1,
    "check_interval": 0,
    "shutdown_timeout": 0,
    "session_server": {"session_timeout": 1800},
}

Table = dict[str, Any]


class ConfigurationError(Exception):
    """The file cannot be read as configuration."""


@dataclass
class Configuration:
    """One reading of the file. `content` is all of it; a file that is not there is an empty configuration."""

    file: Path
    system_id: str
    content: Table = field(default_factory=lambda: json.loads(json.dumps(DEFAULTS)))
    modified: float = 0.0
    loaded: bool = False

    @property
    def runners(self) -> list[Table]:
        found: list[Table] = self.content.setdefault("runners", [])
        return found

    @property
    def check_interval(self) -> float:
        return float(self.content.get("check_interval") or 0) or DEFAULT_CHECK_INTERVAL

    def save(self) -> None:
        """Write the file anew, for root's eyes only. Comments are lost, as with the real one."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.file.with_name(f"{self.file.name}.tmp")
        unfinished.touch(mode=0o600)
        unfinished.write_text(to_toml(self.content))
        unfinished.replace(self.file)


def default_file() -> Path:
    """/etc/gitlab-runner for root, the home folder for others; CONFIG_FILE beats both."""
    if "CONFIG_FILE" in os.environ:
        return Path(os.environ["CONFIG_FILE"])
    if os.geteuid() == 0 or Path("/") != ROOT:
        return ROOT / "etc/gitlab-runner/config.toml"
    return Path.home() / ".gitlab-runner/config.toml"


def load(file: Path) -> Configuration:
    """Raises ConfigurationError for what is no TOML or has a key that is not played, OSError if it cannot be read."""
    system_id = _system_id(file.with_name(".runner_system_id"))
    try:
        modified = file.stat().st_mtime
        content = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return Configuration(file, system_id)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"decoding configuration file: toml: {error}") from None
    if problem := known_keys.problem(content):
        raise ConfigurationError(f"decoding configuration file: {problem}")
    return Configuration(
        file, system_id, {**DEFAULTS, "connection_max_age": "15m0s", **content}, modified=modified, loaded=True
    )


def to_toml(table: Table) -> str:
    """The table as TOML, sections indented like the runner's own files."""
    return "\n".join(_section(table, (), "")) + "\n"


def _section(table: Table, path: tuple[str, ...], indent: str) -> list[str]:
    lines, sections = [], []
    for name, value in table.items():
        title = ".".join((*path, name))
        if isinstance(value, dict):
            sections += [*([] if path else [""]), f"{indent}[{title}]", *_section(value, (*path, name), indent + "  ")]
        elif _is_table_list(value):
            for entry in value:
                sections += ["", f"{indent}[[{title}]]", *_section(entry, (*path, name), indent + "  ")]
        else:
            lines.append(f"{indent}{name} = {_value(value)}")
    return lines + sections


def _is_table_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _value(value: object) -> str:
    if isinstance(value, datetime.datetime):
        return f"{value.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
    if isinstance(value, list):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    return json.dumps(value)


def _system_id(file: Path) -> str:
    """Kept next to config.toml, else made from the machine's id, so that a machine keeps it over a reinstallation."""
    if file.exists() and SYSTEM_ID.fullmatch(file.read_text().strip()):
        return file.read_text().strip()
    machine = ROOT / "etc/machine-id"
    known = machine.read_text().strip() if machine.exists() else ""
    if known:
        made = "s_" + hmac.digest(known.encode(), b"gitlab-runner", hashlib.sha256).hex()[:12]
    else:
        made = "r_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(12))
    log.info("Created missing unique system ID", system_id=made)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(made)
    except OSError:
        log.warning("Couldn't save new system ID on state file.", state_file=file, system_id=made)
    return made
