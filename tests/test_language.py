"""Some words are not used: the documentation and messages have plain ones for them (docs/glossary.md).

A rule holds in the folders and files that it names. When a folder has been freed of a word, add it there.
"""

import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PAGES_OF_ALL = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = (*PAGES_OF_ALL, "CHANGELOG.md", "acceptance/README.md", "lab/README.md", "docs/*.md", "docs/adr/*.md")
DOCS = (*PAGES, "Makefile", "Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.lab.yaml")
EXCEPT = ("docs/moto.md", "docs/glossary.md", "tests/test_language.py")
"""Files that no rule holds for."""


@dataclass(frozen=True)
class Rule:
    """A word as a regular expression, what to write instead, and the files without it, as patterns of paths."""

    word: str
    instead: str
    files: tuple[str, ...]


RULES = (
    Rule(r"anew", "again, recreated", DOCS),
    Rule(r"mend(s|ed|ing)?", "fix, repair, restore", DOCS),
    Rule(r"told|tells?", "report, show, configure, according to", DOCS),
    Rule(r"whoever", "the user who, anyone who", DOCS),
    Rule(r"somebody|nobody|everybody", "someone, no one, a third party", DOCS),
    Rule(r"whatever", "any, regardless of", DOCS),
    Rule(r"by hand|in the hand", "manually", DOCS),
    Rule(r"thereof|therein|thereby|hereby|upon|wherever", "a plain relative clause", DOCS),
    Rule(r"taken over|takes over", "adopt, attach; compromise", DOCS),
    Rule(r"(is|are) no (folder|file|list|time|text|number|key)s?", "is not a ...", DOCS),
    Rule(r"unless told otherwise|unless you say otherwise", "by default", DOCS),
    Rule(r"left out", "omitted, optional", DOCS),
    Rule(r"way out|ways out|way in", "egress, access", DOCS),
    Rule(r"proofs?|proves?|proved|proving", "acceptance, check, show", DOCS),
    Rule(r"hops?(?! limit)", "check", (*PAGES_OF_ALL, "lab/README.md", "docs/*.md")),
    Rule(r"behind Pulumi's back", "outside of Pulumi", (*PAGES_OF_ALL, "lab/README.md", "docs/adr/*.md")),
    Rule(r"user-data are|data (outlive|survive|lie|are)", "data is, data outlives", DOCS),
    Rule(r"damages?", "corruption, problem", PAGES_OF_ALL),
    Rule(r"is well|are well", "passes, is healthy", DOCS),
    Rule(r"lies|lie about|stands?", "is, is stored, is located", DOCS),
    Rule(r"goes on|go on", "continue", DOCS),
    Rule(r"heal(s|ed|ing)?", "repair", PAGES),
    Rule(r"troubles?", "error, problem", DOCS),
    Rule(r"shut", "closed", DOCS),
    Rule(r"looks? (at|into)|looked (at|into)", "inspect, check, query", DOCS),
    Rule(r"otherwise than", "differs from", DOCS),
    Rule(r"(the|a|an|internet-facing) balancers?", "load balancer", DOCS),
)


def texts(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that people read, with their numbers: of Python comments and strings only, of Markdown
    no code, no quoted output and no titles of decisions, of the changelog the unreleased part.
    """
    text = path.read_text()
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        kept = [(token.start[0], token.string) for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING)]
        return [(first + offset, line) for first, each in kept for offset, line in enumerate(each.splitlines())]
    lines = list(enumerate(text.splitlines(), 1))
    if path.suffix != ".md":
        return lines
    kept, fence, releases = [], "", 0
    for number, line in lines:
        releases += line.startswith("## [")
        mark = re.match(r" *(`{3,})", line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
            continue
        if fence or line.startswith("    ") or (path.name == "CHANGELOG.md" and releases > 1):
            continue
        if line.startswith(">") and path.name != "README.md":
            continue
        if path.parent.name == "adr" and (line.startswith("# ") or re.match(r"\| \[\d+\]", line)):
            continue
        kept.append((number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)))
    return kept


def covered(rule: Rule) -> list[Path]:
    """Return the files that a rule holds for."""
    found = {path for pattern in rule.files for path in ROOT.glob(pattern)}
    return sorted(found - {ROOT / name for name in EXCEPT})


@pytest.mark.parametrize("rule", RULES, ids=[rule.word for rule in RULES])
def test_a_word_is_not_used_where_it_has_been_replaced(rule):
    word = re.compile(rf"(?<![\w-])(?:{rule.word})(?![\w-])", re.IGNORECASE)
    assert covered(rule)
    uses = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in covered(rule)
        for number, line in texts(path)
        if word.search(line)
    ]
    assert not uses, f"write instead: {rule.instead}\n" + "\n".join(uses)


def test_only_text_that_people_read_counts(tmp_path):
    (tmp_path / "a.py").write_text('told = "one"  # two\n"""three\nfour"""\n')
    assert [line for _, line in texts(tmp_path / "a.py")] == ['"one"', "# two", '"""three', 'four"""']
    (tmp_path / "a.md").write_text("one `told` [two](told.md)\n\n    told\n\n```\ntold\n```\nthree\n")
    assert [line.strip() for _, line in texts(tmp_path / "a.md") if line.strip()] == ["one  [two", "three"]
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\none\n## [0.1.0]\ntold\n")
    assert [line for _, line in texts(tmp_path / "CHANGELOG.md")] == ["## [Unreleased]", "one"]
