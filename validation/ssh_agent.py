"""Checks whether the user's SSH agent can log in with the administrators' key pair."""

import subprocess

MOST_KEYS = 6
"""Keys that a machine accepts per connection: MaxAuthTries of sshd_config(5). pulumi-command offers all keys of the
agent, in the agent's order (golang.org/x/crypto/ssh, publicKeyCallback).
"""

TIMEOUT = 10  # seconds

REMEDY = (
    "Add it with `ssh-add FILE`, where FILE is the private key; if no agent is running, start one first: "
    "eval $(ssh-agent)"
)


def problem(public_key_line: str) -> str | None:
    """Why the agent at SSH_AUTH_SOCK cannot log in with that key pair, and what to do; None if it can."""
    try:
        done = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        return "ssh-add, which lists the SSH agent's keys, is not installed. Install the OpenSSH client."
    except subprocess.TimeoutExpired:
        return f"the SSH agent did not list its keys within {TIMEOUT} seconds. Start a new agent."
    wanted = public_key_line.split()[:2]
    # Exit status 1: the agent holds no keys; 2: no agent is running. ssh-add prints which.
    held = [line.split()[:2] for line in done.stdout.splitlines()] if done.returncode == 0 else []
    if wanted not in held:
        reason = done.stderr.strip() or done.stdout.strip() if done.returncode else f"keys it holds: {len(held)}"
        return f"the SSH agent does not hold {public_key_line!r} ({reason}). {REMEDY}."
    if held.index(wanted) >= MOST_KEYS:
        return (
            f"the SSH agent offers {held.index(wanted)} other keys before {public_key_line!r}, and a machine accepts "
            f"at most {MOST_KEYS} keys per connection. Use an agent with only that key: "
            "eval $(ssh-agent) && ssh-add FILE."
        )
    return None
