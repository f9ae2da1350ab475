"""The vendors' package repositories as .repo files: signed packages, signed metadata, switched off between steps.

A repository that is off keeps `dnf update` from moving a pinned package; each install step switches its own on.
Addresses and keys as of late 2026, after packages.gitlab.com dropped its older paths at the end of September 2026
(GitLab blog "Changes to packages.gitlab.com"; omnibus-gitlab doc/update/package_signatures.md; docker/docs rhel.md).
"""

from collections.abc import Sequence

GITLAB_KEYS = "https://packages.gitlab.com/gpgkey"


def _repository(name: str, title: str, base_url: str, keys: Sequence[str], *, signed_metadata: bool) -> str:
    return "\n".join(
        [
            f"[{name}]",
            f"name={title}",
            f"baseurl={base_url}",
            "enabled=0",
            "gpgcheck=1",
            f"repo_gpgcheck={int(signed_metadata)}",
            "gpgkey=" + "\n       ".join(keys),
            "sslverify=1",
            "metadata_expire=300",
            "",
        ]
    )


def gitlab_repository() -> str:
    """GitLab CE. Both package keys: 17.10.4 was signed shortly before the key changed in April 2025."""
    return _repository(
        "gitlab_gitlab-ce",
        "GitLab CE",
        "https://packages.gitlab.com/gitlab/gitlab-ce/el/8/$basearch",
        [
            f"{GITLAB_KEYS}/gpg.key",
            f"{GITLAB_KEYS}/gitlab/3D645A26AB9FBD22.pub.gpg",
            f"{GITLAB_KEYS}/gitlab/CB947AD886C8E8FD.pub.gpg",
        ],
        signed_metadata=True,
    )


def runner_repository() -> str:
    """GitLab Runner, with the keys that sign its metadata and its packages."""
    return _repository(
        "runner_gitlab-runner",
        "GitLab Runner",
        "https://packages.gitlab.com/runner/gitlab-runner/el/8/$basearch",
        [f"{GITLAB_KEYS}/gpg.key", f"{GITLAB_KEYS}/runner/49F16C5CC3A0F81F.pub.gpg"],
        signed_metadata=True,
    )


def docker_repository() -> str:
    """Docker CE for RHEL 8. The release is written out: `$releasever` may be 8.10, which Docker does not publish
    (docker/for-linux issue 1530). Docker signs its packages, not its metadata.
    """
    return _repository(
        "docker-ce-stable",
        "Docker CE",
        "https://download.docker.com/linux/rhel/8/$basearch/stable",
        ["https://download.docker.com/linux/rhel/gpg"],
        signed_metadata=False,
    )
