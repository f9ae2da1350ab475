"""acceptance_checks: checks that a stack works, from one of its machines, and stops at the first check that fails.

It is sent to the machines as a zipapp and runs on their own Python, 3.6 or newer, with the standard library only.
configuration/checks.py has the list of the checks, in order, with their limits and what a person reads of them;
`table.py` has the function behind each.
"""
