"""The vendors' package repositories as .repo files: signed packages, signed metadata, disabled between steps.

A disabled repository prevents `dnf update` from upgrading a pinned package; each install step enables its own.
URLs and keys are as of late 2026, after packages.gitlab.com removed its older paths at the end of September 2026
(GitLab blog "Changes to packages.gitlab.com"; omnibus-gitlab doc/update/package_signatures.md; docker/docs rhel.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

GITLAB_KEYS = "https://packages.gitlab.com/gpgkey"

KEYS = "/etc/pki/rpm-gpg"
"""RHEL's directory for package signing keys."""


@dataclass(frozen=True, kw_only=True)
class PackageRepository:
    """A repository of signed packages. `product` is its name in the settings, `name` its dnf repository ID, `file` its
    file in dnf's directory for .repo files, and `key_addresses` are the URLs of the vendor's signing keys.

    dnf reads the keys for packages and metadata from one file on the machine (libdnf Repo.cpp, importRepoKeys; dnf
    crypto.py, retrieve): add_repository.sh verifies their fingerprints before it writes that file.
    """

    product: str
    name: str
    title: str
    file: str
    base_url: str
    signed_metadata: bool
    key_addresses: tuple[str, ...]

    @property
    def setting(self) -> str:
        """The setting with the fingerprints of its keys."""
        return f"{self.product}PackageKeys"

    def render(self) -> str:
        """The .repo file."""
        return "\n".join(
            [
                f"[{self.name}]",
                f"name={self.title}",
                f"baseurl={self.base_url}",
                "enabled=0",
                "gpgcheck=1",
                f"repo_gpgcheck={int(self.signed_metadata)}",
                f"gpgkey=file://{KEYS}/RPM-GPG-KEY-{self.name}",
                "sslverify=1",
                "metadata_expire=300",
                "",
            ]
        )

    def arguments(self, fingerprints: Sequence[str]) -> list[str]:
        """Arguments of add_repository.sh; `fingerprints` is the value of `setting`."""
        return [self.name, self.file, self.setting, ",".join(fingerprints), *self.key_addresses]


GITLAB = PackageRepository(
    product="gitlab",
    name="gitlab_gitlab-ce",
    title="GitLab CE",
    file="gitlab_gitlab-ce.repo",
    base_url="https://packages.gitlab.com/gitlab/gitlab-ce/el/8/$basearch",
    signed_metadata=True,
    # For the metadata, then for packages until spring 2025 and since then: 17.10.4 was signed just before the change.
    key_addresses=(
        f"{GITLAB_KEYS}/gpg.key",
        f"{GITLAB_KEYS}/gitlab/3D645A26AB9FBD22.pub.gpg",
        f"{GITLAB_KEYS}/gitlab/CB947AD886C8E8FD.pub.gpg",
    ),
)

RUNNER = PackageRepository(
    product="runner",
    name="runner_gitlab-runner",
    title="GitLab Runner",
    file="runner_gitlab-runner.repo",
    base_url="https://packages.gitlab.com/runner/gitlab-runner/el/8/$basearch",
    signed_metadata=True,
    key_addresses=(f"{GITLAB_KEYS}/gpg.key", f"{GITLAB_KEYS}/runner/49F16C5CC3A0F81F.pub.gpg"),
)

DOCKER = PackageRepository(
    product="docker",
    name="docker-ce-stable",
    title="Docker CE",
    file="docker-ce.repo",
    # Not `$releasever`, which may be 8.10: Docker publishes only 8 (docker/for-linux issue 1530).
    base_url="https://download.docker.com/linux/rhel/8/$basearch/stable",
    # Docker documents that its packages are signed, but not its metadata: its own docker-ce.repo sets only gpgcheck.
    signed_metadata=False,
    key_addresses=("https://download.docker.com/linux/rhel/gpg",),
)
