"""The AWS-shaped cloud on one machine that runs the unmodified program end to end."""
