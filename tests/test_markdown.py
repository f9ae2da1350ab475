"""The links, commands and paths in the Markdown files exist, and the recipes of CONTRIBUTING.md apply."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "lab").glob("*.md"),
        *(ROOT / "acceptance").glob("*.md"),
    ]
)

FENCE = re.compile(r"^( *)(`{3,})[^`\n]*\n.*?^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}|\t).*\n|\n(?= {4}))+")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")

PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/|(?:[\w.-]+/)*[\w-][\w.-]*\.(?:go|in|json|md|py|rb|sh|toml|txt|yaml)")
"""A code span that matches is a path in this repository."""

OF_OTHERS = {
    # GitLab, gitlab-runner, Docker, Pulumi
    *(".gitlab-ci.yml", "common/system_id_state.go", "config.toml", "daemon.json", "docs/rootless.md"),
    *("gitlab-secrets.json", "gitlab.rb", "recipes/gitlab-rails.rb"),
    # output of commands, placeholders, and files of earlier versions
    *(".lab/", "difference.md", "drift.md", "preview.md", "state.json", "Pulumi.STACK.yaml", "docs/iam/up.json"),
    *("Pulumi.prod.yaml", "Pulumi.prod-b.yaml"),
}
"""Paths that are not in this repository: files of other projects and of running stacks, among others."""

NEW = {"tests/test_journal.py", "remote/limit_journal.sh"}
"""Files that the recipes of CONTRIBUTING.md create."""


def prose(text: str) -> str:
    """Return the text without code blocks; code spans are kept."""
    return INDENTED.sub("\n", FENCE.sub("", text))


def code(text: str) -> str:
    """Return the code blocks and spans of a text, one a line."""
    blocks = [block[0] for pattern in (FENCE, INDENTED) for block in pattern.finditer(text)]
    return "\n".join([*blocks, *SPAN.findall(prose(text))])


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and GitLab give to a page's headings."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        shown = LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for link in LINK.findall(SPAN.sub("", prose(page.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"\bmake ((?:--[\w-]+ )*)([a-z][\w-]*)\b(?!=)", code(page.read_text()))
    assert {target for _, target in named} <= targets


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_path_in_backticks_exists(page):
    if page.name == "moto.md":
        pytest.skip("contains paths of moto; lab/tests/cloud_patches/test_document.py checks them")
    for span in SPAN.findall(prose(page.read_text())):
        if PATH.fullmatch(span) and span not in OF_OTHERS | NEW:
            assert any((folder / span).exists() for folder in (ROOT, page.parent)), span


def test_every_page_is_in_the_index():
    index = ROOT / "docs/index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    adr = {page for page in (ROOT / "docs/adr").glob("*.md") if page.name != "README.md"}
    assert set(PAGES) - adr - {index} <= linked
    of_adr = {(ROOT / "docs/adr" / link).resolve() for link in LINK.findall((ROOT / "docs/adr/README.md").read_text())}
    assert adr <= of_adr


DIFF = re.compile(r"^```diff\n--- (\S+)\n\+\+\+ b/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIFFS = DIFF.findall((ROOT / "CONTRIBUTING.md").read_text())


@pytest.mark.parametrize(("before", "file", "hunks"), DIFFS, ids=[file for _, file, _ in DIFFS])
def test_every_diff_of_a_recipe_applies_to_the_file_as_it_is(before, file, hunks):
    """Or was applied already, because a user who follows a recipe runs this test as well."""
    if before == "/dev/null":
        return
    text = (ROOT / file).read_text()
    for hunk in re.split(r"^@@ .* @@\n", hunks, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines()
        old, new = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
        assert text.count(old) == 1 or text.count(new) == 1, hunk
