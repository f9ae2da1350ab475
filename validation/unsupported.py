"""Lines of the setting `gitlabRb` that GitLab accepts, but with which this stack cannot work.

Only values that can be read in the line are judged: one that Ruby computes is refused if its key must have none, or one
that keeps the data on the data volume.
"""

import re
from collections.abc import Callable

from validation import ruby_text
from validation.assignments import ASSIGNED, assigned

MAIL = "mail is off and the mail server's port is closed without the setting smtpAddress. Set smtpAddress instead"
METADATA = "only root reaches AWS's metadata service on this machine, and GitLab is not root. Set an access key instead"
DATABASE = "upgrades, backups and drills ask the PostgreSQL of this machine"
NOT_IN_BACKUP = "what is not on the data volume is in no backup, and is lost with the machine"

DATA_FOLDERS = ("/var/opt/gitlab", "/etc/gitlab", "/var/log/gitlab")
"""The folders on the data volume."""

DATA_PATHS = {
    "gitlab_rails": (
        "dir",
        "shared_path",
        "uploads_directory",
        "artifacts_path",
        "ci_secure_files_storage_path",
        "external_diffs_storage_path",
        "lfs_storage_path",
        "packages_storage_path",
        "pages_path",
        "terraform_state_storage_path",
    ),
    "gitlab_ci": ("builds_directory",),
    "postgresql": ("dir",),
    "redis": ("dir",),
}
"""Keys with the path of a folder of data."""

LITERAL_PATH = re.compile(r"""\s*(?P<quote>["'])(?P<path>/[^"'\\#]*)(?P=quote)(?=\s*(?:[,;#})\]\n]|$|if\b|unless\b))""")
PATH_KEY = re.compile(r"""(?:["']path["']\s*(?:=>|:)|:path\s*=>|\bpath:)""")
STORAGE_KEY = re.compile(r"""(?:["']storage["']\s*(?:=>|:)|:storage\s*=>|\bstorage:)""")
BRACKET = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<opens>[\[({])|(?P<closes>[\])}])|[\n,]""", re.DOTALL
)

GIT_DATA_DIRS = re.compile(
    rf"""(?:(?:^|;|\bself\.|\bGitlab\.)\s*git_data_dirs(?!\w)|\bGitlab\s*\[\s*['":]git_data_dirs['"]?\s*\])"""
    rf"""(?:{ASSIGNED}|(?=\s*\()|(?=[ \t]+['":{{\w]))""",
    re.MULTILINE,
)
USE_IAM_PROFILE = re.compile(r"""\buse_iam_profile['"]?\]?\s*(?:=>|=(?!=)|:)\s*['"]?true\b""")
"""Of the connection of an object store, which may also be YAML in a heredoc."""


def check(value: str) -> None:
    """Raises ValueError for the first line that this stack does not support."""
    text = "\n".join(ruby_text.code(value))
    if USE_IAM_PROFILE.search(re.sub(r"^\s*#.*", "", value, flags=re.MULTILINE)):
        raise ValueError(f"sets use_iam_profile, but {METADATA}")
    _refuse_unless(_is("true"), text, "postgresql", "enable", why=DATABASE)
    for place in ((), ("databases", "main"), ("databases", "ci")):
        _refuse_unless(_is("nil"), text, "gitlab_rails", *place, "db_host", why=DATABASE)
    for section, keys in DATA_PATHS.items():
        for key in keys:
            _refuse_unless(_is_kept, text, section, key, why=NOT_IN_BACKUP)
    if not all(_keeps_paths(text[match.end() :]) for match in GIT_DATA_DIRS.finditer(text)):
        raise ValueError(f"sets git_data_dirs, but {NOT_IN_BACKUP}. {_remedy()}")
    if not all(map(_keeps_paths, _storages(text))):
        raise ValueError(f"sets gitaly['configuration'][:storage], but {NOT_IN_BACKUP}. {_remedy()}")


def sets_mail(value: str) -> str | None:
    """The reason why the lines cannot be used without a mail server in the settings; None if they can."""
    text = "\n".join(ruby_text.code(value))
    for key in ("smtp_enable", "smtp_address"):
        if not all(map(_is("false|nil"), assigned(text, "gitlab_rails", key))):
            return f"sets gitlab_rails['{key}'], but {MAIL}"
    return None


def _refuse_unless(accepted: Callable[[str], bool], text: str, section: str, *keys: str, why: str) -> None:
    if not all(map(accepted, assigned(text, section, *keys))):
        remedy = _remedy() if why == NOT_IN_BACKUP else "Remove that line"
        subscripts = "".join(f"['{key}']" for key in keys)
        raise ValueError(f"sets {section}{subscripts}, but {why}. {remedy}")


def _remedy() -> str:
    return f"Remove that line, or write a path below {DATA_FOLDERS[0]}"


def _is(word: str) -> Callable[[str], bool]:
    return lambda rest: bool(re.match(rf"\s*(?:{word})\s*(?:[;#\n]|$)", rest))


def _is_kept(rest: str) -> bool:
    """Whether the value is no path, or one on the data volume."""
    literal = LITERAL_PATH.match(rest)
    return _is("nil")(rest) or bool(literal and _is_on_volume(literal["path"]))


def _is_on_volume(path: str) -> bool:
    return ".." not in path.split("/") and any(path.startswith(f"{folder}/") for folder in DATA_FOLDERS)


def _keeps_paths(rest: str) -> bool:
    """Whether the value is a path on the data volume, or contains one or more, and no other."""
    if _is_kept(rest):
        return True
    value = _expression(rest)
    paths = [LITERAL_PATH.match(value, key.end()) for key in PATH_KEY.finditer(value)]
    return bool(paths) and all(path and _is_on_volume(path["path"]) for path in paths)


def _storages(text: str) -> list[str]:
    """The values of Gitaly's storages, set alone or with the rest of its configuration."""
    whole = map(_expression, assigned(text, "gitaly", "configuration"))
    inside = [_expression(value[key.end() :], ends="\n,") for value in whole for key in STORAGE_KEY.finditer(value)]
    return assigned(text, "gitaly", "configuration", "storage") + inside


def _expression(rest: str, ends: str = "\n") -> str:
    """The expression at the beginning of a text: up to one of `ends` at which all its brackets are closed."""
    depth = 0
    for match in BRACKET.finditer(rest):
        if match["opens"]:
            depth += 1
        elif match["closes"]:
            depth -= 1
        elif match[0] in ends and depth == 0 and not rest[: match.start()].rstrip().endswith((",", "=>")):
            return rest[: match.start()]
        if depth < 0:
            return rest[: match.start()]
    return rest
