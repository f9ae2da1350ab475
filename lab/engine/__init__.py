"""The engine: builds of Pulumi's CLI and AWS plugin; the language host and the command plugin in Python."""
