"""What a stack file would make, and what a change of the program would change, without an account, a key or a machine.

Pulumi's engine and HashiCorp's provider are the real ones, the API is the lab's alone, on a port of its own. To compare
two versions of the program the engine brings the first one `up` with plugins that only pretend to create (made_up.py):
the real plugins check and plan every resource, and what only AWS or a machine could tell is made up from the resource's
name. Against that state the engine previews the second version, and the real plugins judge what is updated and what
replaced, as they would on a stack that is there.
"""
