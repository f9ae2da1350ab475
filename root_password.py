"""Prints the first password of GitLab's root user while the server has it: until the password is changed.

    pulumi stack output --json --show-secrets --stack STACK | python root_password.py

It needs the stack's outputs, an OpenSSH client and access to port 22 of the server, whose host key is pinned. Neither
the outputs nor the state contain the password.

Exit status: 0 if printed, 1 if the server no longer has it, 2 if the server could not be queried.
"""

import sys
import time

from configuration.flows import Place
from doctor import read_outputs
from doctor_ssh import LOCKED, CheckError, Machines, StepResult

PRINTED, GONE, COULD_NOT_ASK = 0, 1, 2
TIME_LIMIT = 30  # seconds


def main() -> int:
    """Print the password. Returns the exit status."""
    try:
        inspection = read_outputs(sys.stdin.read())
    except CheckError as reason:
        print(f"root-password: {reason}", file=sys.stderr)
        return COULD_NOT_ASK
    server = Machines(inspection, time.monotonic() + TIME_LIMIT)
    return print_password(server.run(Place.SERVER, "show_root_password", []))


def print_password(result: StepResult) -> int:
    """Print the server's answer. Returns the exit status."""
    if not result.lines:
        why = "a step of pulumi up is running there" if result.status == LOCKED else result.error
        print(f"root-password: the server could not be queried: {why}", file=sys.stderr)
        return COULD_NOT_ASK
    password = result.lines[-1]["rootPassword"]
    if password is None:
        print(
            "root-password: the server no longer has it, because root's password was changed. If the new one is lost, "
            "run on the server: sudo gitlab-rake 'gitlab:password:reset[root]'",
            file=sys.stderr,
        )
        return GONE
    print(password)
    return PRINTED


if __name__ == "__main__":
    sys.exit(main())
