from pathlib import Path

from lab.cloud import patches


def test_every_module_with_corrections_is_a_subject():
    folder = Path(patches.__file__).parent
    marked = {file.stem for file in folder.glob("*.py") if "\n@correction\n" in file.read_text()}
    assert marked == {subject.__name__.rpartition(".")[2] for subject in patches.SUBJECTS}
