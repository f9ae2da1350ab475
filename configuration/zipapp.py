"""Packs a Python package into one executable file, a zipapp (PEP 441), for RHEL 8's platform Python."""

import io
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/libexec/platform-python\n"  # RHEL 8's own Python, 3.6, which is not on PATH


def build_zipapp(package: Path, *imported: Path, compressed: bool = False) -> bytes:
    """A file that runs the package's `__main__`, as `python -m` does.

    `imported` are the other packages of the same folder that it imports. The folder is a package as well, so modules
    have the same names as in the checkout, such as `programs.volume_backup.manifest`.

    The same sources produce the same bytes on every computer, because different bytes would run the step again: entries
    are sorted, have the same time and permissions, and are not compressed, since zlib and its successors compress
    differently. `compressed` is for files that do not trigger a step and should be short.
    """
    folder = package.parent
    paths = [folder / "__init__.py", *(path for each in (package, *imported) for path in each.rglob("*.py"))]
    sources = {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in paths}
    name = f"{folder.name}.{package.name}"
    sources["__main__.py"] = f"import runpy\n\nrunpy.run_module({name!r}, run_name='__main__')\n".encode()
    file = io.BytesIO()
    file.write(SHEBANG)
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name)  # dated 1980, the earliest time in ZIP
            entry.create_system = 3  # Unix, even if it is built on another system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, sources[name], zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return file.getvalue()
