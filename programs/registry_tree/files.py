"""Files below one folder, read without following symbolic links."""

import errno
import functools
import os
import stat
from typing import List, Tuple

from .problems import Problems


class Files:
    """Reads files below `root` and reports unreadable ones as `problems`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.problems = Problems(root)
        self.is_real_folder = functools.lru_cache(maxsize=4096)(self._is_real_folder)

    def _is_real_folder(self, folder: str) -> bool:
        """Whether `folder` and all its parents up to the root are folders, not links. Raises OSError."""
        if folder == self.root:
            return True
        return self.is_real_folder(os.path.dirname(folder)) and stat.S_ISDIR(os.lstat(folder).st_mode)

    def folders(self, path: str) -> List[str]:
        """Sorted names of the folders in a folder; empty if it does not exist."""
        return self.entries(path)[0]

    def entries(self, path: str) -> Tuple[List[str], List[str]]:
        """Sorted names of the folders and of the files in a folder, without links; empty if it does not exist."""
        try:
            if not self.is_real_folder(path):
                self.problems.report("not a file or folder", path, "is not a folder; not followed")
                return [], []
            with os.scandir(path) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries]
        except FileNotFoundError:
            return [], []
        except OSError as error:
            self.problems.report_unreadable(path, error)
            return [], []
        for name, _, is_link in found:
            if is_link:
                self.problems.report(
                    "not a file or folder", os.path.join(path, name), "is a symbolic link; not followed"
                )
        folders = sorted(name for name, is_folder, _ in found if is_folder)
        if len(folders) == len(found):
            return folders, []
        return folders, sorted(name for name, is_folder, is_link in found if not is_folder and not is_link)

    def open(self, path: str, *, listed: bool = False) -> int:
        """Open a regular file. Returns a file descriptor. Raises OSError.

        The file's folder is checked, unless the caller has just `listed` it.
        """
        if not listed and not self.is_real_folder(os.path.dirname(path)):
            raise OSError(errno.ELOOP, "a parent folder is a link")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ELOOP, "not a regular file")
        return descriptor

    def read(self, path: str, limit: int, *, listed: bool = False) -> bytes:
        """Read up to `limit` + 1 bytes of a file, so that a longer one shows. `listed`: see open. Raises OSError."""
        descriptor, content = self.open(path, listed=listed), b""
        try:
            while len(content) <= limit:
                piece = os.read(descriptor, limit + 1 - len(content))
                if not piece:
                    break
                content += piece
        finally:
            os.close(descriptor)
        return content
