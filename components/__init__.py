"""What AWS shall hold, and the remote steps that tell the machines: the only code that talks to Pulumi."""
