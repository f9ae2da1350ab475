"""The errors of the recovery commands."""


class RecoveryError(Exception):
    """A command cannot continue: the message says why, and what the user can do."""
