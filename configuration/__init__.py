"""The machines' configuration as text, and the tables behind it: pure functions and data, no Pulumi."""
