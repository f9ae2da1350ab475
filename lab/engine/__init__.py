"""The engine: Pulumi's CLI and AWS plugin, built; the language host and the command plugin, in Python."""
