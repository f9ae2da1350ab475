"""Lines of the setting `gitlabRb` that appear to contain a secret, so that it is not stored in plain text.

A quoted value is recognized in every line. A value without quotes is one in a text, such as YAML in a heredoc or the
parameters of a connection in a string; in Ruby's own code it is a mistake that would leave the secret in the stack's
file all the same. An expression that reads the secret from elsewhere, such as ENV['X'], File.read('/x') or a variable,
is none.
"""

import re
from collections.abc import Set as AbstractSet

from validation import ruby_text

_NAME = r"""(?i:[\w-]*(?:password|passwd|secret|token|key)[\w-]*)(?:\\?["'])?\]?\s*(?:=>|=|:)\s*"""
_QUOTED = r"""(?:"(?!")|'(?!')|\\"(?!\\")|\\'(?!\\')|%[qQ]?[^\w\s]|<<)(?!/(?:etc|opt|srv|var)/)"""
_IN_URL = r"""://[^\s/:@'"]*:(?!\#\{[^}]*\}@)[^\s/@'"]+@"""
SECRET = re.compile(f"{_NAME}{_QUOTED}|{_IN_URL}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
"""A quoted value, except a path, that is assigned to a name like that of a secret; the password in a URL; or a private
key.
"""

NAMED = re.compile(
    r"""(?i:password|passwd|passphrase|pwd|secret|token|(?<!public)[_-]key|apikey|key_base)(?:\\?["'])?\]?"""
    r"""(?:\s*(?:=>|\|\|=|=(?![=~>]))|:(?=\s|$))[ \t]*"""
)
"""The end of a name like that of a secret, up to the value. Names such as password_length and keys_zone are others."""

_VALUE_ENDS = r"""(?![^\s,;&"'<>)\]}\\])"""
_NO_SECRET_IN_TEXT = re.compile(
    rf"""$|["'\[{{,;&)*!\#]|\\(["'])\\\1|<%=|%[s{{<]|\$[a-z_]+{_VALUE_ENDS}|/(?:etc|opt|srv|var)/"""
    rf"""|(?:(?i:nil|null|true|false|yes|no|~)|-?[\d_.]+){_VALUE_ENDS}"""
)
"""The value is quoted, which SECRET judges, or empty, a reference of YAML, Ruby or nginx, a path, or no string."""

_WORD = re.compile(r"(?P<name>[A-Za-z_]\w*[?!]?)(?P<next>\s*(?:\[|\(|::)|\.\w+[?!]?\(|\.)?|\d+(?!e\d|x)[A-Za-z_]\w*")
_KEYWORDS = frozenset(
    ("nil", "true", "false", "self", "if", "unless", "case", "begin", "not", "lambda", "proc", "yield", "super")
)
_ASSIGNED = re.compile(
    r"""(?<![\w.\['":])(?P<one>[A-Za-z_]\w*)\s*(?:\|\||&&|\+)?=(?![=~>])|^\s*(?P<many>\w+(?:\s*,\s*\w+)+)\s*=(?![=~>])"""
    r"""|\|(?P<block>[^|\n]*)\||\bdef\s+(?P<method>[^\n]*)""",
    re.MULTILINE,
)


def secret_lines(value: str) -> list[int]:
    """Numbers, starting at 1, of the lines that appear to contain a secret."""
    lines = value.splitlines()
    bodies = ruby_text.heredoc_bodies(lines)
    variables = _variables(value)
    return [
        index + 1
        for index, line in enumerate(lines)
        if SECRET.search(line) or (_unquoted_in_text(line) if index in bodies else _unquoted_in_code(line, variables))
    ]


def _variables(value: str) -> AbstractSet[str]:
    """Names of variables, parameters and methods that the lines define."""
    parts = (part for match in _ASSIGNED.finditer(value) for part in match.groups() if part)
    return {name for part in parts for name in re.findall(r"\w+", part)}


def _unquoted_in_text(line: str) -> bool:
    text = re.sub(r"(?:^|\s)#(?!\{).*", "", line)
    return any(_is_secret_in_text(text[match.end() :]) for match in NAMED.finditer(text))


def _unquoted_in_code(line: str, variables: AbstractSet[str]) -> bool:
    code = ruby_text.without_comment(line)
    strings = ruby_text.strings(code)
    for match in NAMED.finditer(code):
        inside = [end for start, end in strings if start < match.end() < end]
        if inside and _is_secret_in_text(code[match.end() : inside[0]]):
            return True
        if not inside and _is_secret_in_code(code[match.end() :], variables):
            return True
    return False


def _is_secret_in_text(rest: str) -> bool:
    return not _NO_SECRET_IN_TEXT.match(rest)


def _is_secret_in_code(rest: str, variables: AbstractSet[str]) -> bool:
    """Whether the rest of a line begins with a word that Ruby cannot know."""
    word = _WORD.match(rest)
    if not word:
        return False
    name, following = word["name"], word["next"] or ""
    if not name:
        return True
    reads = following.rstrip().endswith(("[", "(", "::")) or (following == "." and name[0].isupper())
    return not (reads or name in _KEYWORDS or name in variables)
