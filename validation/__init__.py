"""Reading and checking of single settings, in plain Python: imports neither `settings` nor Pulumi."""
