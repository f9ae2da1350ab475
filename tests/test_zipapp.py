"""A program with several modules is packed into one file, whose bytes only depend on the sources."""

import compileall
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from configuration.remote_step import PROGRAMS
from configuration.zipapp import SHEBANG, build_zipapp

SOURCES = {
    "__init__.py": '"""Says hello."""\n',
    "__main__.py": "import sys\n\nfrom .text import HELLO\n\nprint(HELLO, *sys.argv[1:])\n",
    "text.py": "HELLO = 'hello'\n",
    "deeper/__init__.py": "",
}
SHA_256 = "d56adb01eabe983a51fb737bde6c5a8860d09634119f27e2244eeaae97ef0789"
"""The digest of the package above, independent of the folder and the Python version that build it."""


@pytest.fixture
def package(tmp_path) -> Path:
    folder = tmp_path / "programs" / "hello"
    for name, text in {"../__init__.py": "", **SOURCES}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_same_sources_give_the_same_bytes_on_every_machine(package):
    built = build_zipapp(package)
    assert hashlib.sha256(built).hexdigest() == SHA_256
    for path in package.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    compileall.compile_dir(package, quiet=1)
    assert list(package.rglob("*.pyc"))
    assert build_zipapp(package) == built


def test_other_sources_give_other_bytes(package):
    built = build_zipapp(package)
    (package / "text.py").write_text("HELLO = 'hallo'\n")
    assert build_zipapp(package) != built


def test_it_runs_the_package_with_its_arguments(package, tmp_path):
    program = tmp_path / "program"
    program.write_bytes(build_zipapp(package))
    done = subprocess.run([sys.executable, program, "you"], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "hello you\n"


def test_it_contains_no_other_package_than_those_it_imports(package, tmp_path):
    (package / "__main__.py").write_text("from programs.words.text import HELLO\n\nprint(HELLO)\n")
    words, other = package.parent / "words", package.parent / "other"
    for folder in (words, other):
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "text.py").write_text("HELLO = 'good day'\n")
    program = tmp_path / "program"
    program.write_bytes(build_zipapp(package, words))
    with zipfile.ZipFile(program) as archive:
        assert not [name for name in archive.namelist() if "other" in name]
    command = [sys.executable, program]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "good day\n"
    program.write_bytes(build_zipapp(package))
    alone = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert "No module named 'programs.words'" in alone.stderr


def test_it_is_for_the_python_of_rhel_8_and_needs_no_library_for_compression(package, tmp_path):
    program = tmp_path / "program"
    program.write_bytes(build_zipapp(package))
    assert program.read_bytes().startswith(SHEBANG)
    with zipfile.ZipFile(program) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist() == sorted(
            ["__main__.py", "programs/__init__.py", *(f"programs/hello/{name}" for name in SOURCES)]
        )


def test_registry_tree_says_what_it_can_do(tmp_path):
    program = tmp_path / "registry-tree"
    program.write_bytes(build_zipapp(PROGRAMS / "registry_tree"))
    done = subprocess.run([sys.executable, program, "--help"], cwd="/", capture_output=True, text=True, check=True)
    assert "verify" in done.stdout


def test_a_compressed_one_is_shorter_and_runs_as_well(package, tmp_path):
    (package / "text.py").write_text("HELLO = 'hello'\n" + "# a long comment\n" * 100)
    program = tmp_path / "program"
    program.write_bytes(build_zipapp(package, compressed=True))
    assert program.stat().st_size < len(build_zipapp(package)) / 2
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert done.stdout == "hello\n"
