"""Checks that a restored copy of a stack is silenced and complete, on its server and on its registry's machine.

It is sent to the machines as a zipapp and runs on their system Python, 3.6 or newer, with only the standard library.
The zipapp also contains programs/volume_backup: what a copy contains is found out as for the manifest of its backup.

GitLab's rake tasks exit with status 0 regardless of what they find, so their output is parsed (`rake_output`). Output
that is not understood fails the check.
"""
