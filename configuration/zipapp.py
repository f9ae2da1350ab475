"""Packs a Python package into one executable file, a zipapp (PEP 441), for RHEL 8's platform Python."""

import io
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/libexec/platform-python\n"  # RHEL 8's own Python, 3.6, which is not on PATH


def build_zipapp(package: Path, *, compressed: bool = False) -> bytes:
    """A file that runs the package's `__main__`, as `python -m` does; the package must use relative imports.

    The same sources produce the same bytes on every computer, because different bytes would run the step again: entries
    are sorted, have the same time and permissions, and are not compressed, since zlib and its successors compress
    differently. `compressed` is for files that do not trigger a step and should be short.
    """
    sources = {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in package.rglob("*.py")}
    sources["__main__.py"] = f"import runpy\n\nrunpy.run_module({package.name!r}, run_name='__main__')\n".encode()
    file = io.BytesIO()
    file.write(SHEBANG)
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name)  # dated 1980, the earliest time in ZIP
            entry.create_system = 3  # Unix, even if it is built on another system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, sources[name], zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return file.getvalue()
