"""Code shared by `gitlab-rails` and `gitlab-rake`, which run as the user git and only after a reconfigure."""

import os
import sys

from lab_gitlab import accounts, console, paths, rake


def enter() -> None:
    """Switch to the user git, who can read the application's files, and set the environment of gitlab_rails['env'].

    Exits with the real command's message if that fails.
    """
    if not paths.RAILS_RC.exists():
        sys.exit(
            f"{sys.argv[0]} error: could not load {paths.RAILS_RC}\n"
            "Either you are not allowed to read the file, or it does not exist yet.\n"
            "You can generate it with:   sudo gitlab-ctl reconfigure"
        )
    try:
        accounts.become(accounts.owner("git"))
    except (accounts.AccountError, PermissionError):
        sys.exit("chpst: fatal: unable to setgroups: access denied")
    os.environ.update({file.name: file.read_text() for file in paths.RAILS_ENVIRONMENT.iterdir()})
    os.chdir(paths.RAILS)


def rails(arguments: list[str]) -> int:
    """`gitlab-rails runner [-e ENVIRONMENT] CODE|FILE|- [ARGUMENT...]`"""
    enter()
    command, rest = (arguments or ["help"])[0], arguments[1:]
    if command not in ("runner", "r"):
        print(f"gitlab-rails {command}: the lab supports only gitlab-rails runner", file=sys.stderr)
        return 1
    while rest and rest[0] in ("-e", "--environment"):
        rest = rest[2:]
    if not rest:
        print("Please specify a valid ruby command or the path of a script to run.", file=sys.stderr)
        return 1
    return console.run(rest[0], rest[1:])


def rake_main(arguments: list[str]) -> int:
    enter()
    return rake.main(arguments)
