"""The command line of the recovery commands. Exit status: 0 done, 1 failed, 130 interrupted."""

import argparse
import sys
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from recovery import backups, destroy, drill, forget, restore
from recovery.errors import RecoveryError
from recovery.pulumi_cli import INTERRUPTED, Interrupted

COMMANDS = (backups, restore, drill, destroy, forget)
"""The modules of the commands, each with `add_parser`, which sets the default `run`: what carries the command out."""


def parser() -> argparse.ArgumentParser:
    """The command-line parser."""
    top = argparse.ArgumentParser(prog="recovery", description="Lists, uses and deletes the backups of a stack.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns the exit status."""
    chosen = parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except RecoveryError as error:
        print(f"recovery: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupt:
        print(f"recovery: interrupted by {interrupt}; run the same command again", file=sys.stderr)
        return INTERRUPTED
    except (BotoCoreError, ClientError) as error:
        # Among them missing credentials and missing permissions, whose messages name the call.
        print(f"recovery: AWS: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
