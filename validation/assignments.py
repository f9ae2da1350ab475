"""Finds lines of gitlab.rb that set a key of a section, however the key is written."""

import re

ASSIGNED = (
    r"(?:\s*\[[^\]\n]*\])*\s*(?:(?:\|\||&&|[|&+*-])?=(?![=~>])|<<"
    r"|\.\s*(?:push|concat|replace|clear|delete|store|merge!|update))"
)
"""What follows the name of a setting if the line changes it or a part of it."""


def assigned(text: str, section: str, *keys: str) -> list[str]:
    """What follows each assignment to a key, or to a key inside another one: the value, and the rest of the text."""
    subscripts = r"\s*".join(map(_subscript, keys))
    return [text[match.end() :] for match in re.finditer(rf"{_section(section)}\s*{subscripts}{ASSIGNED}", text)]


def _subscript(key: str) -> str:
    return rf"\[\s*(?:'{key}'|\"{key}\"|:{key}|:'{key}'|:\"{key}\")\s*\]"


def _section(name: str) -> str:
    own = rf"(?<![\w'\":]){name}(?!\w)|\bGitlab\s*{_subscript(name)}"
    return rf"(?:{own}|(?<![\w'\":])gitlab_rails\s*{_subscript(name)})" if name == "nginx" else f"(?:{own})"
