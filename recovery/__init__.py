"""Commands for the whole life of a stack's data: list backups, restore them, try them out, destroy a stack, forget it.

    python -m recovery backups|destroy|forget-backups --stack NAME

They use the operator's own AWS credentials and the `pulumi` command, and need no machine of the stack: backups are
found by the tags of their snapshots alone. Each command is a module with `add_parser`; `catalogue` describes backups,
`leftovers` what a stack has in AWS, and `stack` the stack itself.
"""
