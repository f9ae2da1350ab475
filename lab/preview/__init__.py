"""Previews of a stack file and of a change of the program, without an account, a key or a machine.

Pulumi's engine and HashiCorp's provider are real; the API is the lab's, without machines, on a port of its own. To
compare two versions of the program, the engine runs `up` of the first one with plugins that only simulate creation
(made_up.py): the real plugins check and plan every resource, and values that only AWS or a machine could return are
generated from the resource's name. On that state the engine previews the second version, and the real plugins decide
what is updated and what is replaced, as on an existing stack.
"""
