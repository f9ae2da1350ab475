"""Every path in scripts, programs, cloud-init files and docs/ is defined in configuration/paths.py, or by a vendor and
listed below.
"""

import fnmatch
import re
from pathlib import Path

import pytest

from configuration import paths

ROOT = Path(__file__).resolve().parent.parent
PATH = re.compile(r"(?<![\w.}{$%*/-])/(?:etc|opt|root|run|srv|usr|var)(?:/[\w.-]+)+\*?")
READERS = [
    *(path for folder in ("remote", "cloud-init", "docs") for path in (ROOT / folder).glob("*.*")),
    *(path for path in (ROOT / "programs").rglob("*") if path.is_file() and path.suffix != ".pyc"),
    *(path for path in (ROOT / "configuration").glob("*.py") if path.name != "paths.py"),
    *(ROOT / "acceptance").glob("*.*"),
    *(
        ROOT / name
        for name in ("README.md", "doctor.py", "doctor_ssh.py", "root_password.py", "settings.py", "__main__.py")
    ),
    *(ROOT / "components").glob("*.py"),
]

OURS = {name: value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}
VENDORS = {
    # RHEL, systemd, OpenSSH, cloud-init
    *("/etc/environment", "/etc/fstab", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/systemd/system"),
    "/var/lib/systemd/timers/stamp-",
    *(
        "/etc/pki/ca-trust/source/anchors",
        "/etc/yum.repos.d",
        "/etc/pki/rpm-gpg",
        "/etc/pki/rpm-gpg/RPM-GPG-KEY-",
        "/var/cache/dnf",
    ),
    *(
        "/root/old-token-key",
        "/usr/bin/flock",
        "/usr/bin/sleep",
        "/usr/libexec/platform-python",
        "/usr/local",
        "/var/log/cloud-init-output.log",
    ),
    # Docker, and the registry's image
    *("/etc/docker", "/etc/docker/daemon.json", "/etc/docker/certs.d/HOST", "/var/lib/registry"),
    "/var/lib/registry/docker/registry/lockfiles",
    # gitlab-runner
    *("/etc/gitlab-runner", "/etc/gitlab-runner/.runner_system_id", "/etc/gitlab-runner/config.toml"),
    # GitLab
    *("/etc/gitlab", "/etc/gitlab/gitlab.rb", "/etc/gitlab/gitlab.rb.template", "/etc/gitlab/gitlab-secrets.json"),
    *(
        "/etc/yum.repos.d/gitlab.repo",
        "/etc/pki/rpm-gpg/RPM-GPG-KEY-gitlab_gitlab-ce",
        "/opt/gitlab/etc/gitlab.rb.template",
        "/usr/bin/gitlab-rails",
    ),
    *(
        "/opt/gitlab/embedded/bin/git",
        "/opt/gitlab/embedded/bin/pg_dump",
        "/opt/gitlab/embedded/bin/ruby",
        "/opt/gitlab/embedded/service/gitlab-rails/VERSION",
        "/var/log/gitlab",
        "/var/log/gitlab/nginx/gitlab_access.log",
    ),
    *("/var/opt/gitlab", "/var/opt/gitlab/backups", "/var/opt/gitlab/bootstrapped"),
    *("/var/opt/gitlab/gitlab-rails/shared/registry", "/var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub"),
    *("/var/opt/gitlab/gitlab-workhorse/sockets/socket", "/var/opt/gitlab/postgresql/data/PG_VERSION"),
    *(
        "/var/opt/gitlab/postgresql",
        "/var/opt/gitlab/postgresql/data",
        "/var/opt/gitlab/postgresql/data/postmaster.pid",
    ),
    *("/var/opt/gitlab/postgresql/.s.PGSQL.*", "/var/opt/gitlab/git-data/repositories"),
    *("/var/opt/gitlab/redis/dump.rdb", "/var/opt/gitlab/redis/appendonly*"),
}


def unknown(text: str) -> set[str]:
    """Undefined paths in a text. A temporary file counts as its final path, and a step's log as its folder."""
    known = {*OURS.values(), *VENDORS}
    found = {path.rstrip(".").removesuffix(".new") for path in PATH.findall(text)}
    places = {re.sub(rf"^({paths.LOGS})/[A-Za-z_]+\.log$", r"\1", path) for path in found - known}
    return {path for path in places if not fnmatch.filter(known, path)}


@pytest.mark.parametrize("path", sorted(READERS), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_is_known(path):
    assert unknown(path.read_text()) == set(), "misspelt, or missing in configuration/paths.py or in VENDORS"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("/srv/registry/images", "/srv/regsitry/images"),
        ("exec 9>/run/gitlab-stack.lock", "exec 9>/run/gitlab-stac.lock"),
        ("log=/var/log/gitlab-stack/$name.log", "log=/var/log/gitlabstack/$name.log"),
        ("cat /etc/gitlab/seeded-root-password", "cat /etc/gitlab/seeded-rootpassword"),
        ('"/usr/local/sbin/run-step.new"', '"/usr/local/bin/run-step.new"'),
        ("source=/srv/registry/images,target=", "source=/srv/registry/image,target="),
    ],
)
def test_a_misspelt_path_is_found(right, wrong):
    assert not unknown(right)
    assert unknown(wrong)


@pytest.mark.parametrize("name", OURS)
def test_every_path_of_ours_is_used(name):
    text = "".join(path.read_text() for path in READERS)
    assert re.search(rf"{re.escape(OURS[name])}(?![\w/])|\b{name}\b", text)
