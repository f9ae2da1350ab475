"""The image in which the docker executor clones, and in which the real runner transfers artifacts and caches.

GitLab's image is Alpine with git, dumb-init and the helper program. This one is busybox with Debian's git and tini. The
helper in it is the real runner itself, which includes the helper's commands; the runner's stand-in needs no helper.
"""

import shutil
import tarfile
import tempfile
from pathlib import Path

from lab.authority import LAB
from lab.shell import call
from lab.vendors import images
from lab.vendors.images import copy_libraries, find_program
from lab.workspace import CACHE

SOURCE = Path(__file__).parent / "packages" / "gitlab-runner-helper-images" / "image"
GIT_COMMANDS = Path("/usr/lib/git-core")
GIT_TEMPLATES = Path("/usr/share/git-core/templates")


def pack(runner: Path | None, tini: Path, archive: Path) -> None:
    """Write the image's files to `archive` in the format of `docker import` and the runner (tar.xz).

    `runner` is the real runner, `tini` a statically linked tini. Raises LabError if git or busybox is not installed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="helper-image-", dir=CACHE) as folder:
        root = Path(folder, "root")
        lay_out(root, runner, tini)
        # The lowest compression level, because the archive is rebuilt for every change of the runner.
        with tarfile.open(archive, "w:xz", preset=0) as packed:
            packed.add(root, arcname=".", filter=_owned_by_root)


def lay_out(root: Path, runner: Path | None, tini: Path) -> None:
    """Put the image's files into the new folder `root`; the parameters are those of `pack`."""
    shutil.copytree(SOURCE, root)
    programs = root / "usr" / "bin"
    shutil.copy2(tini, programs / "tini")
    if runner:
        shutil.copy2(runner, programs / "gitlab-runner-helper")
    _add_git(root)
    _add_busybox(root)
    images.lay_out(root, {images.BUNDLE: LAB.certificate()})
    for name, lines in {"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n"}.items():
        (root / "etc" / name).write_text(lines)
    (root / "root").mkdir()
    (root / "tmp").mkdir()
    call("chmod", "--recursive", "u=rwX,go=rX", str(root))
    (root / "tmp").chmod(0o1777)


def _add_git(root: Path) -> None:
    git = find_program("git")
    shutil.copy2(git, root / "usr" / "bin" / "git")
    for folder in (GIT_COMMANDS, GIT_TEMPLATES):
        shutil.copytree(folder, root / folder.relative_to("/"), symlinks=True)
    for program in (git, GIT_COMMANDS / "git-remote-http"):
        copy_libraries(program, root)


def _add_busybox(root: Path) -> None:
    busybox = find_program("busybox")
    folder = root / "bin"
    folder.mkdir()
    shutil.copy2(busybox, folder / "busybox")
    for applet in call(str(busybox), "--list").split():
        if applet != "busybox":
            (folder / applet).symlink_to("busybox")


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
