"""What the machines are told, as text: pure functions, no Pulumi."""
