"""The text that each edit of a wrong program replaces exists, so that no end-to-end test fails late."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def edits() -> Iterator[tuple[str, str]]:
    """File and text of every edit with this form: `{"path": [("text", "its replacement"), ...]}`. Instead of a text
    there may be a name that the module assigns to it.
    """
    for module in sorted((ROOT / "tests" / "e2e").glob("*.py")):
        tree = ast.parse(module.read_text())
        names = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Dict):
                continue
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.List) and (ROOT / str(key.value)).is_file():
                    for pair in value.elts:
                        if isinstance(pair, ast.Tuple):
                            first = pair.elts[0]
                            text = names[first.id] if isinstance(first, ast.Name) else first
                            yield str(key.value), ast.literal_eval(text)


EDITS = list(edits())


def test_the_edits_are_found():
    assert len(EDITS) > 40


@pytest.mark.parametrize(("file", "text"), EDITS)
def test_the_text_of_an_edit_is_in_its_file_once(file, text):
    assert (ROOT / file).read_text().count(text) == 1
