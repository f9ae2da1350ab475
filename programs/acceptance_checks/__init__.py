"""acceptance_checks: checks from one of a stack's machines that the stack works, and stops at the first failing check.

It is sent to the machines as a zipapp and runs on their system Python, 3.6 or newer, with only the standard library.
configuration/checks.py defines the checks: their order, limits and messages. `table.py` has the function of each check.
"""
