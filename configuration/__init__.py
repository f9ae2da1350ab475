"""Renders the machines' configuration and defines the tables behind it: pure functions and data, no Pulumi."""
