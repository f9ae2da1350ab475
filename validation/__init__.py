"""Reads and validates single settings, in plain Python: imports neither `settings` nor Pulumi."""
