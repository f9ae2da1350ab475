"""A Python package as one executable file, a zipapp (PEP 441), for the Python that is part of RHEL 8."""

import io
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/libexec/platform-python\n"  # RHEL 8's own Python, 3.6, which is not on PATH


def build_zipapp(package: Path, *, compressed: bool = False) -> bytes:
    """A file that runs the package's `__main__`, as `python -m` does; the package imports itself relatively.

    The same sources give the same bytes on every machine, because other bytes run the step again: entries are sorted,
    of one time and with the same rights, and not compressed, since zlib and its successors compress differently.
    `compressed` is for what runs no step again and is better short.
    """
    sources = {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in package.rglob("*.py")}
    sources["__main__.py"] = f"import runpy\n\nrunpy.run_module({package.name!r}, run_name='__main__')\n".encode()
    file = io.BytesIO()
    file.write(SHEBANG)
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name)  # of 1980, the earliest time that ZIP knows
            entry.create_system = 3  # Unix, also when it is built elsewhere
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, sources[name], zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return file.getvalue()
