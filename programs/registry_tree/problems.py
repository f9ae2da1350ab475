"""Problems found in a store."""

import errno
import os
from typing import Dict, Iterator, List, NamedTuple, Tuple

MAX_NAMES = 10  # images listed in `needed_by` of one problem


class StoreError(Exception):
    """The store, or the requested part of it, cannot be inspected; the message explains why."""


class Problem(NamedTuple):
    """One problem of one file."""

    kind: str
    path: str  # relative to the store
    detail: str
    needed_by: List[str]  # the first MAX_NAMES images that need the file
    needs: int  # images that need the file


def describe_os_error(error: OSError) -> Tuple[str, str]:
    """Kind and detail of the problem for a file that cannot be read."""
    if error.errno == errno.ELOOP:
        return "not a file or folder", "is not a regular file; not followed"
    return "unreadable", error.strerror or str(error)


class Problems:
    """The problems of one store, at most one of each kind per path, sorted by kind and path."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._found: Dict[Tuple[str, str], Problem] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter([self._found[key] for key in sorted(self._found)])

    def report(self, kind: str, path: str, detail: str, needed_by: str = "") -> None:
        """Add a problem of the file `path`, which the image `needed_by` needs."""
        key = (kind, os.path.relpath(path, self._root))
        problem = self._found.get(key) or Problem(key[0], key[1], detail, [], 0)
        if needed_by and needed_by not in problem.needed_by:
            if len(problem.needed_by) < MAX_NAMES:
                problem.needed_by.append(needed_by)
            problem = problem._replace(needs=problem.needs + 1)
        self._found[key] = problem

    def clear(self) -> None:
        """Remove all problems."""
        self._found.clear()

    def report_unreadable(self, path: str, error: OSError) -> None:
        """Add a problem for a file that cannot be read."""
        kind, detail = describe_os_error(error)
        self.report(kind, path, detail)

    def merge(self, problem: Problem) -> None:
        """Add a problem that another process found while it checked other images."""
        key = (problem.kind, problem.path)
        known = self._found.get(key)
        if known:
            names = known.needed_by + [name for name in problem.needed_by if name not in known.needed_by]
            problem = problem._replace(needed_by=names[:MAX_NAMES], needs=known.needs + problem.needs)
        self._found[key] = problem

    def confirmed_by(self, later: "Problems") -> "Problems":
        """The problems that a later check of the same store has found again."""
        confirmed = Problems(self._root)
        confirmed._found = {key: problem for key, problem in later._found.items() if key in self._found}
        return confirmed
