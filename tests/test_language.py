"""The documentation, messages and comments do not use certain words, but plain ones instead (docs/glossary.md).

A rule covers the files that it lists. Add a folder to a rule once the folder is free of its word.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PAGES_OF_ALL = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = (*PAGES_OF_ALL, "CHANGELOG.md", "acceptance/README.md", "lab/README.md", "docs/*.md", "docs/adr/*.md")
DOCS = (*PAGES, "Makefile", "Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.lab.yaml")
PRODUCT = (
    *("*.py", "components/*", "configuration/*", "validation/*", "remote/*", "programs/*", "programs/*/*.py"),
    *("recovery/*", "acceptance/*", "cloud-init/*", "tools/*", ".ci/*", ".github/**/*.yaml"),
)
TESTS = ("conftest.py", "tests/*.py", "tests/e2e/*.py")
LAB = ("lab/**/*", "tests/contract/*")
EVERYWHERE = (*DOCS, *PRODUCT, *TESTS, *LAB)
EXCEPT = (
    *("docs/moto.md", "docs/glossary.md", "tests/test_language.py", "lab/preview/former_examples.json"),
    "lab/played/gitlab_ce/lab_gitlab/passwords.py",  # a list of passwords
)
"""Files that no rule covers."""

PYTHON_TEXT = re.compile(
    r"""(
    \#.*
    | (?<!\w)[bfru]{0,2}(?: (\"{3}|'{3})(?:\\[\s\S]|(?!\2)[^\\])*\2 | "(?:\\[\s\S]|[^"\\])*" | '(?:\\[\s\S]|[^'\\])*' )
    )""",
    re.VERBOSE | re.IGNORECASE,
)
"""A comment or a string of Python 3.11. The module tokenize finds the same ones, but takes five times as long."""
SHELL_TEXT = re.compile(r"""\\.|((?<!\S)#.*|'[^']*'|"(?:\\[\s\S]|[^"\\])*")""")
"""A comment or a quoted string of a shell or Ruby program, or an escaped character, which begins neither."""


@dataclass(frozen=True)
class Rule:
    """A word (a regular expression in lower case), its replacement, and path patterns of the files without it."""

    word: str
    instead: str
    files: tuple[str, ...]


RULES = (
    Rule(r"anew", "again, recreated", EVERYWHERE),
    Rule(r"mend(s|ed|ing)?", "fix, repair, restore", EVERYWHERE),
    Rule(r"told|tells?", "report, show, configure, according to", EVERYWHERE),
    Rule(r"whoever", "the user who, anyone who", EVERYWHERE),
    Rule(r"somebody|nobody|everybody", "someone, no one, a third party", EVERYWHERE),
    Rule(r"whatever", "any, regardless of", EVERYWHERE),
    Rule(r"by hand|in the hand", "manually", EVERYWHERE),
    Rule(r"thereof|therein|thereby|hereby|upon|wherever", "a plain relative clause", EVERYWHERE),
    Rule(r"taken over|takes over", "adopt, attach; compromise", EVERYWHERE),
    Rule(r"(is|are) no (folder|file|list|time|text|number|key)s?", "is not a ...", EVERYWHERE),
    Rule(r"unless told otherwise|unless you say otherwise", "by default", EVERYWHERE),
    Rule(r"left out", "omitted, optional", EVERYWHERE),
    Rule(r"way out|ways out|way in", "egress, access", EVERYWHERE),
    Rule(r"proofs?|proves?|proved|proving", "acceptance, check, show", EVERYWHERE),
    Rule(
        r"(?<!network )hops?(?! limit)", "check", (*PAGES_OF_ALL, "lab/README.md", "docs/*.md", *PRODUCT, *TESTS, *LAB)
    ),
    Rule(
        r"behind pulumi's back", "outside of Pulumi", (*PAGES_OF_ALL, "lab/README.md", "docs/adr/*.md", *PRODUCT, *LAB)
    ),
    Rule(r"user-data are|data (outlive|survive|lie|are)", "data is, data outlives", EVERYWHERE),
    Rule(r"damages?", "corruption, problem", PAGES_OF_ALL),
    Rule(r"is well|are well", "passes, is healthy", EVERYWHERE),
    Rule(r"lies|lie about|stands?(?! for| in)", "is, is stored, is located", EVERYWHERE),
    Rule(r"goes on|go on", "continue", EVERYWHERE),
    Rule(r"heal(s|ed|ing)?", "repair", EVERYWHERE),
    Rule(r"troubles?", "error, problem", EVERYWHERE),
    Rule(r"shut(?! down)", "closed", EVERYWHERE),
    Rule(r"looks? (at|into)|looked (at|into)", "inspect, check, query", EVERYWHERE),
    Rule(r"otherwise than", "differs from", EVERYWHERE),
    Rule(r"(the|a|an|internet-facing) balancers?", "load balancer", EVERYWHERE),
)


@functools.cache
def whole(path: Path) -> str:
    """Return what `texts` returns as one string in lower case."""
    return "\n".join(line for _, line in texts(path)).lower()


@functools.cache
def texts(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that are meant for readers, with their numbers.

    Programs: comments, and strings with a space (others are names and keys), without code in them. Markdown: no code,
    quoted output and titles of decisions. Changelog: the unreleased part.
    """
    text = path.read_text()
    if path.suffix == ".md":
        return _prose(path.name, path.parent.name, text)
    if path.suffix == ".py":
        pieces = _pieces(PYTHON_TEXT, text)
    elif path.suffix in (".sh", ".rb") or text.startswith("#!"):
        pieces = _pieces(SHELL_TEXT, text)
    else:
        return list(enumerate(text.splitlines(), 1))
    lines = [
        (first + at, line) for first, piece in pieces if " " in piece for at, line in enumerate(piece.splitlines())
    ]
    return [(number, re.sub(r"`[^`]*`|\{[^{}]*\}", "", line)) for number, line in lines]


def _pieces(pattern: re.Pattern[str], text: str) -> list[tuple[int, str]]:
    """Return the comments and quoted strings of a program, which are the first group of the pattern."""
    pieces, number, counted = [], 1, 0
    for piece in pattern.finditer(text):
        number += text.count("\n", counted, piece.start())
        counted = piece.start()
        if piece[1]:
            pieces.append((number, piece[1]))
    return pieces


def _prose(name: str, folder: str, text: str) -> list[tuple[int, str]]:
    kept, fence, releases = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        releases += line.startswith("## [")
        mark = re.match(r" *(`{3,})", line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
            continue
        if fence or line.startswith("    ") or (name == "CHANGELOG.md" and releases > 1):
            continue
        if line.startswith(">") and name != "README.md":
            continue
        if folder == "adr" and (line.startswith("# ") or re.match(r"\| \[\d+\]", line)):
            continue
        kept.append((number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)))
    return kept


@functools.cache
def covered(files: tuple[str, ...]) -> list[Path]:
    """Return the files that a rule with these path patterns covers."""
    found = {path for pattern in files for path in ROOT.glob(pattern)}
    found -= {ROOT / name for name in EXCEPT}
    return sorted(path for path in found if path.is_file() and path.parent.name != "__pycache__")


@pytest.mark.parametrize("rule", RULES, ids=[rule.word for rule in RULES])
def test_a_word_is_not_used_where_it_has_been_replaced(rule):
    word = re.compile(rf"(?<![\w-])(?:{rule.word})(?![\w-])", re.IGNORECASE)
    files = covered(rule.files)
    assert rule.word.islower(), "it would not be found in the text in lower case"
    assert files
    uses = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        if re.search(rule.word, whole(path))  # many times as fast as line by line, and as without regard to case
        for number, line in texts(path)
        if word.search(line)
    ]
    assert not uses, f"write instead: {rule.instead}\n" + "\n".join(uses)


def test_only_text_that_people_read_counts(tmp_path):
    (tmp_path / "a.py").write_text('told = "one `told` {told}"  # two\ntell["told"]\n"""three\nfive six"""\n')
    assert texts(tmp_path / "a.py") == [(1, '"one  "'), (1, "# two"), (3, '"""three'), (4, 'five six"""')]
    (tmp_path / "b.py").write_text('a = rb\'# \\\' " b\' + """\\""" "c" # d""" + \'\' + x # it\'s e\n')
    assert [text for _, text in texts(tmp_path / "b.py")] == [
        "rb'# \\' \" b'",
        '"""\\""" "c" # d"""',
        "# it's e",
    ]
    (tmp_path / "a").write_text("""#!/bin/sh\ntold=$# # one's\ntold 'told' "two\n three" 'four five' ${#told}\n""")
    assert texts(tmp_path / "a") == [(2, "# one's"), (3, '"two'), (4, ' three"'), (4, "'four five'")]
    (tmp_path / "a.md").write_text("one `told` [two](told.md)\n\n    told\n\n```\ntold\n```\nthree\n")
    assert [line.strip() for _, line in texts(tmp_path / "a.md") if line.strip()] == ["one  [two", "three"]
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\none\n## [0.1.0]\ntold\n")
    assert [line for _, line in texts(tmp_path / "CHANGELOG.md")] == ["## [Unreleased]", "one"]
