"""The AWS resources and the remote steps that configure the machines: the only code that uses Pulumi."""
