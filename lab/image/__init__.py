"""The image of a machine: Debian's packages configured like RHEL 8.10, with real systemd and cloud-init."""

from lab.image.build import ensure, image

__all__ = ["ensure", "image"]
