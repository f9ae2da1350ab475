"""systemd units of the programs that stay on the machines. Sources: systemd.service(5), systemd.timer(5)."""

from collections.abc import Mapping, Sequence

from configuration.flows import Place
from configuration.paths import (
    COLLECT_GARBAGE,
    FORGET_ROOT_PASSWORD,
    INITIAL_ROOT_PASSWORD,
    INSTALL_SECURITY_UPDATES,
    KEEP_DATA_MOUNTED,
    LOCK,
    PRUNE_DOCKER,
    REFUSE_CONTAINERS,
    REGISTRY_DATA,
)

PRUNE_CALENDAR = "03:17"
"""When Docker is pruned: every night, but not at midnight, when nightly pipelines begin."""
FORGET_CALENDAR = "05:23"
"""When the first password of GitLab's root user is looked at: GitLab's console takes a minute of one processor."""
FULL_DISK = 70
"""Per cent of Docker's disk in use above which images without a container are removed."""
UPDATE_DELAY = {Place.SERVER: 0, Place.REGISTRY: 30 * 60, Place.RUNNER: 60 * 60}
"""Seconds from the time of the setting until each machine installs its updates: one after the other, so that no two of
them reboot together. A calendar has no offset, and systemd of RHEL 8 (239) no FixedRandomDelay.
"""


def security_updates_service(place: Place) -> str:
    """Runs install-security-updates once, when it is this machine's turn."""
    return _unit(
        Unit={"Description": "Install security updates", "After": "network-online.target"},
        Service={
            "Type": "oneshot",
            "ExecStartPre": f"/usr/bin/sleep {UPDATE_DELAY[place]}",
            "ExecStart": INSTALL_SECURITY_UPDATES,
        },
    )


def security_updates_timer(calendar: str) -> str:
    """Starts install-security-updates.service at `calendar`, as of systemd.time(7), and after a boot when a time was
    missed.
    """
    return _unit(
        Unit={"Description": "Install security updates, now and then"},
        Timer={"OnCalendar": calendar, "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def docker_prune_service() -> str:
    """Runs prune-docker once."""
    return _unit(
        Unit={"Description": "Remove what jobs left in Docker", "After": "docker.service"},
        Service={"Type": "oneshot", "ExecStart": f"{PRUNE_DOCKER} {FULL_DISK}"},
    )


def docker_prune_timer() -> str:
    """Starts docker-prune.service every night."""
    return _unit(
        Unit={"Description": "Remove what jobs left in Docker, every night"},
        Timer={"OnCalendar": PRUNE_CALENDAR, "RandomizedDelaySec": "30min"},
        Install={"WantedBy": "timers.target"},
    )


def refuse_containers_service() -> str:
    """Runs refuse-containers before Docker starts, which does not start without it."""
    return _unit(
        Unit={"Description": "Refuse what containers send to this machine itself", "Before": "docker.service"},
        Service={"Type": "oneshot", "RemainAfterExit": "yes", "ExecStart": REFUSE_CONTAINERS},
        Install={"RequiredBy": "docker.service"},
    )


def forget_root_password_service() -> str:
    """Runs forget-root-password once, while there is a password to forget and beside no step of this program."""
    return _unit(
        Unit={
            "Description": "Forget the first password of GitLab's root user when it was changed",
            "ConditionPathExists": INITIAL_ROOT_PASSWORD,
        },
        Service={
            "Type": "oneshot",
            # What is busy now is not so tomorrow.
            "ExecStart": f"/usr/bin/flock --shared --nonblock --conflict-exit-code 0 {LOCK} {FORGET_ROOT_PASSWORD}",
            "Nice": "19",
        },
    )


def forget_root_password_timer() -> str:
    """Starts forget-root-password.service every day."""
    return _unit(
        Unit={"Description": "Forget the first password of GitLab's root user when it was changed, every day"},
        Timer={"OnCalendar": FORGET_CALENDAR, "RandomizedDelaySec": "30min", "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def collect_garbage_service(*, port: int, untagged: bool) -> str:
    """Runs collect-garbage once for the registry on `port`; with `untagged`, manifests without a tag are freed too."""
    return _unit(
        Unit={
            "Description": "Free what no image of the registry needs",
            "After": "docker.service",
            "RequiresMountsFor": REGISTRY_DATA,
        },
        Service={
            "Type": "oneshot",
            "RuntimeDirectory": "collect-garbage",
            "ExecStart": f"{COLLECT_GARBAGE} collect {port}{' -m' if untagged else ''}",
            # Also after a failure, a timeout or a kill.
            "ExecStopPost": f"{COLLECT_GARBAGE} finish {port}",
            "TimeoutStopSec": "300",
        },
    )


def collect_garbage_timer(calendar: str) -> str:
    """Starts collect-garbage.service at `calendar`, as of systemd.time(7), and after a boot when a time was missed."""
    return _unit(
        Unit={"Description": "Free what no image of the registry needs, now and then"},
        Timer={"OnCalendar": calendar, "Persistent": "true"},
        Install={"WantedBy": "timers.target"},
    )


def keep_data_mounted_service(*, device: str, service: str, mountpoint: str, targets: Sequence[str]) -> str:
    """Runs keep-data-mounted all the time, for the volume that is `device`."""
    return _unit(
        Unit={"Description": "Mount the data volume when it comes late or again"},
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
