"""Finds comments, strings and heredocs in lines of Ruby, as far as the checks of the setting `gitlabRb` need them.

Only patterns: a quote in a regular expression, for example, is taken for the beginning of a string.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

TOKEN = re.compile(
    r"""(?P<heredoc><<(?P<indented>[~-]?)(?P<quote>["'`]?)(?P<word>[A-Za-z_]\w*)(?P=quote))"""
    r"""|(?P<string>"(?:[^"\\]|\\.)*(?:"|\\?$)|'(?:[^'\\]|\\.)*(?:'|\\?$))"""
    r"""|(?P<comment>\#(?!\{).*)"""
)
"""The beginning of a heredoc, a string that may continue in the next line, or a comment."""


def heredoc_bodies(lines: Sequence[str]) -> AbstractSet[int]:
    """Indices of the lines inside heredocs, each with the line that ends it. One that nothing ends is none: Ruby
    rejects it.
    """
    bodies: set[int] = set()
    following = 0
    for index, line in enumerate(lines):
        if index < following:
            continue
        following = index + 1
        for opener in TOKEN.finditer(line):
            if not opener["heredoc"]:
                continue
            end = _end_of_heredoc(lines, following, opener)
            if end is None:
                break
            bodies.update(range(following, end + 1))
            following = end + 1
    return bodies


def code(value: str) -> list[str]:
    """The lines of Ruby, without lines of comments and the texts in heredocs."""
    lines = re.split(r"\r?\n", value)
    bodies = heredoc_bodies(lines)
    return [line for index, line in enumerate(lines) if index not in bodies and not line.lstrip().startswith("#")]


def _end_of_heredoc(lines: Sequence[str], first: int, opener: re.Match[str]) -> int | None:
    for index in range(first, len(lines)):
        line = lines[index].strip() if opener["indented"] else lines[index]
        if line == opener["word"]:
            return index
    return None


def strings(line: str) -> list[tuple[int, int]]:
    """Where the strings of a line begin and end, with their quotes."""
    return [match.span() for match in TOKEN.finditer(line) if match["string"]]


def without_comment(line: str) -> str:
    """A line without its comment."""
    starts = [match.start() for match in TOKEN.finditer(line) if match["comment"]]
    return line[: starts[0]] if starts else line
