"""systemd units of the programs installed on the machines. Sources: systemd.service(5), systemd.timer(5)."""

from collections.abc import Mapping, Sequence

from configuration.flows import Place
from configuration.paths import (
    BACKUP_VOLUME,
    COLLECT_GARBAGE,
    FORGET_ROOT_PASSWORD,
    INITIAL_ROOT_PASSWORD,
    INSTALL_SECURITY_UPDATES,
    KEEP_DATA_MOUNTED,
    LOCK,
    PRUNE_DOCKER,
    REFUSE_CONTAINERS,
    REGISTRY_DATA,
    RESTRICT_EGRESS,
    RESTRICT_METADATA,
)

PRUNE_CALENDAR = "03:17"
"""When Docker is pruned: every night, but not at midnight, when nightly pipelines start."""
FORGET_CALENDAR = "05:23"
"""When the first password of GitLab's root user is checked: at night, as GitLab's console uses one CPU for a minute."""
FULL_DISK = 70
"""Disk usage of Docker, in percent, above which images without a container are removed."""
UPDATE_DELAY = {Place.SERVER: 0, Place.REGISTRY: 30 * 60, Place.RUNNER: 60 * 60}
"""Seconds that each machine waits after the scheduled time before it installs updates, so that no two machines reboot
together. Calendar expressions have no offset, and systemd 239 of RHEL 8 has no FixedRandomDelay.
"""
BACKUP_DELAY = {Place.SERVER: 0, Place.REGISTRY: 3 * 60}
"""Seconds that each machine waits after the scheduled time before its backup: an image that GitLab knows was pushed
before, so the registry's snapshot has to be the later one. Each timer may be up to a minute late (AccuracySec).
"""
BACKUP_BUSY = 75
"""Exit status of gitlab-backup-volume if a step or a garbage collection is running (programs/volume_backup/errors.py).
"""


def security_updates_service(place: Place) -> str:
    """Runs install-security-updates once, after this machine's delay."""
    return _unit(
        Unit={"Description": "Install security updates", "After": "network-online.target"},
        Service={
            "Type": "oneshot",
            "ExecStartPre": f"/usr/bin/sleep {UPDATE_DELAY[place]}",
            "ExecStart": INSTALL_SECURITY_UPDATES,
        },
    )


def security_updates_timer(calendar: str) -> str:
    """Starts install-security-updates.service at `calendar` (systemd.time(7)), and after a boot if it missed a run."""
    return _unit(
        Unit={"Description": "Install security updates on schedule"},
        Timer={"OnCalendar": calendar, "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def backup_service(place: Place, mountpoint: str) -> str:
    """Runs gitlab-backup-volume once, after this machine's delay, and thaws the file system if it was killed."""
    return _unit(
        Unit={
            "Description": f"Back up the data volume at {mountpoint}",
            "After": "network-online.target",
            "RequiresMountsFor": mountpoint,
        },
        Service={
            "Type": "oneshot",
            "ExecStartPre": f"/usr/bin/sleep {BACKUP_DELAY[place]}",
            "ExecStart": f"{BACKUP_VOLUME} now --reason scheduled",
            "ExecStopPost": f"-/usr/sbin/fsfreeze --unfreeze {mountpoint}",
            # Not a failure: the check of backups reports if too many runs in a row are skipped.
            "SuccessExitStatus": str(BACKUP_BUSY),
            "TimeoutStartSec": str(BACKUP_DELAY[place] + 15 * 60),
        },
    )


def backup_timer(calendar: str) -> str:
    """Starts gitlab-backup-volume.service at `calendar` (systemd.time(7)), and after a boot if it missed a run."""
    return _unit(
        Unit={"Description": "Back up the data volume on schedule"},
        Timer={"OnCalendar": calendar, "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def restrict_metadata_service() -> str:
    """Runs restrict-metadata at every boot, before the network is up."""
    return _unit(
        Unit={
            "Description": "Let only root reach the metadata service",
            "Wants": "network-pre.target",
            "Before": "network-pre.target",
        },
        Service={"Type": "oneshot", "RemainAfterExit": "yes", "ExecStart": RESTRICT_METADATA},
        Install={"WantedBy": "multi-user.target"},
    )


def restrict_egress_service(arguments: Sequence[str]) -> str:
    """Runs restrict-egress at every boot, before the network is up; GitLab does not start without it."""
    return _unit(
        Unit={
            "Description": "Let GitLab's users reach only this stack",
            "Wants": "network-pre.target",
            "Before": "network-pre.target gitlab-runsvdir.service",
        },
        Service={"Type": "oneshot", "RemainAfterExit": "yes", "ExecStart": " ".join([RESTRICT_EGRESS, *arguments])},
        Install={"RequiredBy": "gitlab-runsvdir.service"},
    )


def docker_prune_service() -> str:
    """Runs prune-docker once."""
    return _unit(
        Unit={"Description": "Remove leftovers of jobs from Docker", "After": "docker.service"},
        Service={"Type": "oneshot", "ExecStart": f"{PRUNE_DOCKER} {FULL_DISK}"},
    )


def docker_prune_timer() -> str:
    """Starts docker-prune.service every night."""
    return _unit(
        Unit={"Description": "Remove leftovers of jobs from Docker every night"},
        Timer={"OnCalendar": PRUNE_CALENDAR, "RandomizedDelaySec": "30min"},
        Install={"WantedBy": "timers.target"},
    )


def refuse_containers_service() -> str:
    """Runs refuse-containers before Docker starts; Docker does not start without it."""
    return _unit(
        Unit={"Description": "Block traffic from containers to this machine", "Before": "docker.service"},
        Service={"Type": "oneshot", "RemainAfterExit": "yes", "ExecStart": REFUSE_CONTAINERS},
        Install={"RequiredBy": "docker.service"},
    )


def forget_root_password_service() -> str:
    """Runs forget-root-password once, if there is a password to delete and no step of this program is running."""
    return _unit(
        Unit={
            "Description": "Delete the initial password of GitLab's root user once it has changed",
            "ConditionPathExists": INITIAL_ROOT_PASSWORD,
        },
        Service={
            "Type": "oneshot",
            # If a step is running, the next day is early enough.
            "ExecStart": f"/usr/bin/flock --shared --nonblock --conflict-exit-code 0 {LOCK} {FORGET_ROOT_PASSWORD}",
            "Nice": "19",
        },
    )


def forget_root_password_timer() -> str:
    """Starts forget-root-password.service every day."""
    return _unit(
        Unit={"Description": "Check daily whether to delete the initial password of GitLab's root user"},
        Timer={"OnCalendar": FORGET_CALENDAR, "RandomizedDelaySec": "30min", "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def collect_garbage_service(*, port: int, untagged: bool) -> str:
    """Runs collect-garbage once for the registry on `port`; with `untagged`, it also deletes untagged manifests."""
    return _unit(
        Unit={
            "Description": "Collect the registry's garbage",
            "After": "docker.service",
            "RequiresMountsFor": REGISTRY_DATA,
        },
        Service={
            "Type": "oneshot",
            "RuntimeDirectory": "collect-garbage",
            "ExecStart": f"{COLLECT_GARBAGE} collect {port}{' -m' if untagged else ''}",
            # Runs after a failure, a timeout or a kill as well.
            "ExecStopPost": f"{COLLECT_GARBAGE} finish {port}",
            # `finish` waits for the lock, which security updates or a step may have by then.
            "TimeoutStopSec": "2h",
        },
    )


def collect_garbage_timer(calendar: str) -> str:
    """Starts collect-garbage.service at `calendar` (systemd.time(7)), and after a boot if it missed a run."""
    return _unit(
        Unit={"Description": "Collect the registry's garbage on schedule"},
        Timer={"OnCalendar": calendar, "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def keep_data_mounted_service(*, device: str, service: str, mountpoint: str, targets: Sequence[str]) -> str:
    """Runs keep-data-mounted permanently, for the volume at `device`."""
    return _unit(
        Unit={"Description": "Mount the data volume whenever it is attached"},
        Service={
            "ExecStart": " ".join([KEEP_DATA_MOUNTED, device, service, mountpoint, *targets]),
            "Restart": "always",
            "RestartSec": "10",
        },
        Install={"WantedBy": "multi-user.target"},
    )


def _unit(**sections: Mapping[str, str]) -> str:
    lines = []
    for section, entries in sections.items():
        lines += [f"[{section}]", *(f"{key}={value}" for key, value in entries.items())]
    return "\n".join(lines) + "\n"
