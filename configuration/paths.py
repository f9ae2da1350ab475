"""Paths on the machines that this program chooses. The scripts in remote/, the programs in programs/ and the files in
cloud-init/ repeat these paths literally; tests/test_paths.py checks that they use no others.
"""

# Every machine.
INSTALLED_PROGRAMS = "/usr/local/sbin"
"""Directory of the programs that steps install. RHEL's sudo does not search it (secure_path): use absolute paths."""
RUN_STEP = f"{INSTALLED_PROGRAMS}/run-step"
FIRST_BOOT = f"{INSTALLED_PROGRAMS}/first-boot"
STATE = "/var/lib/gitlab-stack"
FIRST_BOOT_DONE = f"{STATE}/first-boot-done"
"""Exists once the first boot has succeeded; the step prepare_host waits for it."""
LOCK = "/run/gitlab-stack.lock"
"""Lock file for flock(1): exclusive for steps and garbage collections, shared for the doctor's checks and backups."""
TRUSTED_AUTHORITY = f"{STATE}/trusted-authority"
"""The setting certificateAuthority as the running services have loaded it; the step trust_authority compares it."""
LOGS = "/var/log/gitlab-stack"
"""Directory of the steps' logs: NAME.log is the log of the last run of the step NAME."""
INSTALL_SECURITY_UPDATES = f"{INSTALLED_PROGRAMS}/install-security-updates"
SECURITY_UPDATES_STARTED = f"{STATE}/security-updates-started"
"""Touched when the installation of security updates starts."""
SECURITY_UPDATES_INSTALLED = f"{STATE}/security-updates-installed"
"""Touched when the installation succeeds."""
SECURITY_UPDATES_LOG = f"{LOGS}/install-security-updates.log"
BACKUP_VOLUME = "/usr/bin/gitlab-backup-volume"
"""For administrators, who run it with sudo: RHEL's sudo searches this directory."""
BACKUP_CONFIGURATION = "/etc/gitlab-stack/backup.json"
"""What BACKUP_VOLUME backs up; it is also the lock file of backups, which are exclusive."""
LAST_BACKUP = f"{STATE}/last-backup.json"
"""The record of the last backup of this machine, and of the last failure."""
RESTRICT_METADATA = f"{INSTALLED_PROGRAMS}/restrict-metadata"
RESTRICT_METADATA_SERVICE = "/etc/systemd/system/restrict-metadata.service"
GREETING = "/etc/motd.d/gitlab-stack"
KEEP_DATA_MOUNTED = f"{INSTALLED_PROGRAMS}/keep-data-mounted"
KEEP_DATA_MOUNTED_SERVICE = "/etc/systemd/system/keep-data-mounted.service"

# The server.
GITLAB_DATA = "/srv/gitlab"
"""Mountpoint of GitLab's data volume."""
GITLAB_FOLDERS = ("/var/opt/gitlab", "/etc/gitlab", "/var/log/gitlab")
"""GitLab's own directories that are stored on the data volume."""
RESTORED_FROM = f"{GITLAB_DATA}/restored-from"
"""Contains the ID of the snapshot that the volume was created from, once the step clean_restored_data is done."""
INITIAL_ROOT_PASSWORD = "/etc/gitlab/seeded-root-password"
"""The first password of GitLab's root user, readable only by the machine's root; written before GitLab is seeded with
it, deleted by FORGET_ROOT_PASSWORD once that user's password has changed.
"""
SEEDED = "/etc/gitlab/seeded-by-stack"
"""Marks a GitLab that this program has seeded or adopted; contains a hash of its first password."""
UNPREPARED = "/etc/gitlab/unprepared"
"""Exists from before the database is seeded until prepare_gitlab has succeeded once."""
FORGET_ROOT_PASSWORD = f"{INSTALLED_PROGRAMS}/forget-root-password"
GITLAB_TRUSTED_CERTIFICATES = "/etc/gitlab/trusted-certs"
"""Certificates that GitLab trusts after a reconfigure (omnibus-gitlab, recipes/add_trusted_certs.rb)."""
TOKEN_KEY = "/etc/gitlab/registry-token.key"
"""The private key that signs the registry's tokens."""
TOKEN_CERTIFICATE = "/etc/gitlab/registry-token.crt"
FORMER_GITLAB_RB = "/etc/gitlab/gitlab.rb.worked"
"""The last gitlab.rb that worked; GitLab gets it back if one does not work."""
CONFIGURED_VERSION = "/etc/gitlab/configured-version"
"""The last version of GitLab that became ready, stored on the data volume; upgrades start from it."""
ACCEPTANCE_LOCK = "/run/gitlab-stack-acceptance.lock"
"""Lock file, held while the acceptance issues or revokes its token."""

# The runner's machine.
PRUNE_DOCKER = f"{INSTALLED_PROGRAMS}/prune-docker"
DOCKER_IN_DOCKER = "/etc/gitlab-runner/docker-in-docker.json"
"""daemon.json of a Docker daemon that a privileged job runs as a service."""
REFUSE_CONTAINERS = f"{INSTALLED_PROGRAMS}/refuse-containers"
REFUSE_CONTAINERS_SERVICE = "/etc/systemd/system/refuse-containers.service"

# The registry's machine.
REGISTRY_DATA = "/srv/registry"
"""Mountpoint of the registry's data volume."""
REGISTRY_IMAGES = f"{REGISTRY_DATA}/images"
"""The registry's root directory on the volume."""
REGISTRY_HTTP_SECRET = f"{REGISTRY_DATA}/http-secret.env"
REGISTRY_CONFIGURATION = "/etc/docker/registry"
"""Directory of the registry's configuration, mounted at the same path in its container."""
REGISTRY_CONFIG = f"{REGISTRY_CONFIGURATION}/config.yml"
REGISTRY_TOKEN_CERTIFICATE = f"{REGISTRY_CONFIGURATION}/gitlab-registry.crt"
REGISTRY_TREE = "/usr/bin/registry-tree"
"""For administrators, who run it with sudo: RHEL's sudo searches this directory."""
COLLECT_GARBAGE = f"{INSTALLED_PROGRAMS}/collect-garbage"
COLLECT_GARBAGE_LOG = f"{LOGS}/collect-garbage.log"
COLLECT_GARBAGE_RESULT = "/run/collect-garbage/result"
DOCKER_WAITS_FOR_DATA = "/etc/systemd/system/docker.service.d/data-volume.conf"


def volume_device(volume_id: str) -> str:
    """The block device of an EBS volume on a Nitro machine. /dev/nvme*n1 are numbered in order of detection; only the
    serial number identifies the volume (Amazon EBS user guide, "Map Amazon EBS volumes to NVMe device names").
    """
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '', 1)}"
