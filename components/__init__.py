"""The resources of AWS, and the remote steps that configure the machines: the only code that talks to Pulumi."""
