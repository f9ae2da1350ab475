"""The image of a machine: RHEL 8.10's look and tools on Debian's packages, real systemd and cloud-init."""

from lab.image.build import ensure, image

__all__ = ["ensure", "image"]
