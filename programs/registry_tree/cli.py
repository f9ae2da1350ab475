"""The command line of registry-tree.

Exit status: 0 no problems, 1 problems found or collection refused, 2 could not check.
"""

import argparse
import concurrent.futures.process
import contextlib
import json
import multiprocessing
import os
import sys
import traceback
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, TextIO

from . import du, history, ls, reclaim, show, verify
from .problems import Problem, StoreError
from .store import Store
from .text import Progress, and_more, plural, printable

DEFAULT_ROOT = "/srv/registry/images"
SOUND, DAMAGED, CANNOT_CHECK = 0, 1, 2
IMAGE = "group/project:tag or group/project@sha256:..."


class Command(NamedTuple):
    """A command: the function that gathers its data, and the one that renders it as lines of text."""

    gather: Callable[[Store, argparse.Namespace], Dict[str, Any]]
    render: Callable[[Dict[str, Any]], Iterator[str]]


COMMANDS = {
    "ls": Command(ls.gather, ls.render),
    "show": Command(show.gather, show.render),
    "history": Command(history.gather, history.render),
    "du": Command(du.gather, du.render),
    "verify": Command(verify.gather, verify.render),
    "reclaim": Command(reclaim.gather, reclaim.render),
}


def parser() -> argparse.ArgumentParser:
    """The command-line parser."""
    top = argparse.ArgumentParser(
        prog="registry-tree",
        description="Inspects and verifies what a container registry stores on its disk. Never writes to it.",
        epilog="Exit status: 0 no problems, 1 problems found or collection refused, 2 could not check.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        added.add_argument(
            "--root", default=DEFAULT_ROOT, help="the registry's root directory, or a copy of it (default: %(default)s)"
        )
        added.add_argument("--json", action="store_true", help="print the result as one JSON document")
        return added

    command("ls", "list repositories and tags with their sizes").add_argument(
        "repository", nargs="?", default="", help="only list this repository and those nested in it"
    )
    shown = "show an image down to its layers, with sizes, files, and the images that share them"
    command("show", shown).add_argument("image", help=IMAGE)
    command("history", "list every digest that a tag has pointed to, as far as it is recorded").add_argument(
        "image", help="group/project:tag"
    )
    command("du", "show the bytes stored, referenced, saved by sharing, and reclaimable").add_argument(
        "--by", choices=("repo", "tag", "layer"), default="repo", help="what to list (default: %(default)s)"
    )
    check = command("verify", "verify all links, manifests and blobs, and recompute their digests")
    check.add_argument("images", nargs="*", metavar="image", help=IMAGE + " (default: everything)")
    check.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of worker processes (default: %(default)s)"
    )
    command("reclaim", "show what a garbage collection would free, and why").add_argument(
        "--untagged", action="store_true", help="include untagged manifests, as garbage-collect -m does"
    )
    return top


class Report(NamedTuple):
    """The result of a command: its data, the problems it found, and why it could not complete, if it could not."""

    data: Dict[str, Any]
    problems: List[Problem]
    obstacles: List[Problem]  # why a collection is refused; only for `reclaim`
    failure: str

    @property
    def status(self) -> int:
        """The exit status."""
        return DAMAGED if self.problems or self.obstacles else CANNOT_CHECK if self.failure else SOUND


def gather(options: argparse.Namespace, progress: Progress) -> Report:
    """Run a command."""
    store, data, failure = None, {}, ""
    try:
        store = Store(options.root, progress)
        data = COMMANDS[options.command].gather(store, options)
    except StoreError as error:
        failure = str(error)
    except OSError as error:
        failure = f"{error.filename or options.root}: {error.strerror}"
    except concurrent.futures.process.BrokenProcessPool:
        failure = "a worker process was killed, possibly because memory ran out; try again with --jobs 1"
    obstacles = list(store.obstacles) if store and options.command == "reclaim" else []
    return Report(data, list(store.problems) if store else [], obstacles, failure)


def render_problems(word: str, problems: Iterable[Problem]) -> Iterator[str]:
    """One line of text for each problem, starting with `word`."""
    for problem in problems:
        names = ", ".join(problem.needed_by) + and_more(problem.needs - len(problem.needed_by))
        needed = f"; needed by {names}" if names else ""
        yield f"{word} {problem.kind}: {problem.path}: {problem.detail}{needed}"


def render(report: Report, command: str) -> Iterator[str]:
    """The lines of text of a command's result."""
    if not report.failure:
        yield from COMMANDS[command].render(report.data)
    yield from render_problems("DAMAGE", report.problems)
    yield from render_problems("REFUSED", report.obstacles)
    if command == "verify" and not report.failure:
        yield plural(len(report.problems), "problem") + " found" if report.problems else "no problems found"


def write(report: Report, options: argparse.Namespace, output: TextIO) -> None:
    """Write the result to `output`, and a failure to standard error."""
    if report.failure:
        print(ascii("registry-tree: " + report.failure)[1:-1], file=sys.stderr)
    if options.json and not report.failure:
        found = {"damage": [problem._asdict() for problem in report.problems]}
        if options.command == "reclaim":
            found["refused"] = [problem._asdict() for problem in report.obstacles]
        json.dump(dict(report.data, **found), output, indent=1)
        output.write("\n")
    else:
        output.writelines(printable(line) + "\n" for line in render(report, options.command))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run registry-tree with these arguments, or those of the process. Returns the exit status."""
    options = parser().parse_args(arguments)
    progress = Progress(sys.stderr)
    report = gather(options, progress)
    progress.clear()
    # File names can have any encoding, and the locale of a service is often C.
    descriptor = sys.stdout.fileno()
    with contextlib.suppress(BrokenPipeError), open(  # the reader may stop reading
        descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False
    ) as output:
        write(report, options, output)
    return report.status


def run() -> None:
    """Run registry-tree and exit, with the right status even after an unexpected error."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        os._exit(CANNOT_CHECK)  # without waiting for the workers
    except Exception:  # noqa: BLE001 - Python would exit with 1, the status of problems found
        traceback.print_exc()
        sys.exit(CANNOT_CHECK)
