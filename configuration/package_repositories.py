"""The vendors' package repositories as .repo files: signed packages, signed metadata, switched off between steps.

A repository that is off keeps `dnf update` from moving a pinned package; each install step switches its own on.
Addresses and keys as of late 2026, after packages.gitlab.com dropped its older paths at the end of September 2026
(GitLab blog "Changes to packages.gitlab.com"; omnibus-gitlab doc/update/package_signatures.md; docker/docs rhel.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

GITLAB_KEYS = "https://packages.gitlab.com/gpgkey"

KEYS = "/etc/pki/rpm-gpg"
"""Where RHEL has the keys of packages."""


@dataclass(frozen=True, kw_only=True)
class PackageRepository:
    """A repository of signed packages. `product` is what the settings call it, `name` is dnf's id of it, `file` lies in
    the folder of dnf's .repo files, `key_addresses` are where the vendor offers its signing keys.

    dnf reads the keys from one file on the machine, for packages and metadata alike (libdnf Repo.cpp, importRepoKeys;
    dnf crypto.py, retrieve): add_repository.sh has compared them before it lays that file down.
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
        """The setting that has the fingerprints of its keys."""
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
    # Of the metadata, then of packages until spring 2025 and since: 17.10.4 was signed shortly before the change.
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
    # Of the release 8 by name: `$releasever` may be 8.10, which Docker does not publish (docker/for-linux issue 1530).
    base_url="https://download.docker.com/linux/rhel/8/$basearch/stable",
    # Docker says of its packages that they are signed, and of its metadata nothing: its own docker-ce.repo has gpgcheck
    # alone.
    signed_metadata=False,
    key_addresses=("https://download.docker.com/linux/rhel/gpg",),
)
