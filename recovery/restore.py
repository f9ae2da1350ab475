"""The command `restore`: brings a new stack up from a backup of another one, which may be lost.

It needs only this project, the account and the two snapshots. What was done is seen in AWS, in the stack's file and in
Pulumi's state, so that the same command continues where an earlier one was interrupted.
"""

import argparse
import dataclasses
import datetime
import re
from pathlib import Path
from typing import Any

from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    WaiterError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from programs.volume_backup.backup import age, time_of, utc_now
from recovery import catalogue, confirmation, copies, domain_record, leftovers, quotas, stack, stack_file
from recovery.catalogue import Pair
from recovery.errors import RecoveryError
from recovery.phases import Phases
from recovery.pulumi_cli import Pulumi, exclusive, interruptible
from recovery.stack import Stack
from recovery.stack_file import Document
from recovery.sweep import USERS_OF_NETWORKS, sweep
from validation import ssh_agent

RUNNING = ("pending", "running", "stopping")
"""States of a machine that may still do something."""

STOPPED_WITHIN = {"Delay": 5, "MaxAttempts": 60}
"""Five minutes. In a zone that has failed, machines may never stop, and the restore must not wait for that."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("restore", help="bring up a new stack from a backup of another one")
    parser.add_argument("--stack", required=True, metavar="NEW", help="the stack to create")
    parser.add_argument("--from", required=True, metavar="NAME", dest="source", help="the stack to restore")
    add_arguments(parser)
    confirmation.add_argument(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that the drill has, too."""
    parser.add_argument("--backup", default=catalogue.LATEST, metavar="ID", help="default: the newest complete one")
    parser.add_argument("--region", help="region of the new stack, to which the backup is copied (default: as before)")
    parser.add_argument("--zone", help="availability zone of the new stack (default: as before)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="settings of the former stack")
    parser.add_argument(
        "--set", action="append", default=[], type=_assignment, metavar="KEY=VALUE", dest="overrides",
        help="a setting of the new stack that differs, in YAML; repeatable",
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> int:
    """Restore. Returns the exit status."""
    source = read_source(chosen.source, chosen.settings)
    with exclusive() as lock, interruptible():
        Restore(source, Pulumi(chosen.stack, lock=lock), chosen).run()
    return 0


def read_source(name: str, settings: Path | None) -> Stack:
    """The stack that the backup is of."""
    return stack.read(argparse.Namespace(stack=name, settings=settings, region=None))


class Restore:
    """One run of the command."""

    def __init__(self, source: Stack, pulumi: Pulumi, chosen: argparse.Namespace) -> None:
        self._source = source
        self._pulumi = pulumi
        self._chosen = chosen
        self._target = dataclasses.replace(source, region=chosen.region or source.region)
        self.phases = Phases()

    def run(self) -> None:
        """Find the backup, stop the former machines, copy the backup if necessary, and bring the stack up."""
        name = self._pulumi.stack
        if stack_file.short(name) == stack_file.short(self._source.name):
            raise RecoveryError(f"{name} cannot be restored into itself: choose a name that no stack has, with STACK=")
        settings = stack_file.read(self._source.settings or self._pulumi.folder / stack_file.name(self._source.name))
        with self.phases("find"):
            unfinished = self._unfinished()
            pair = self._restored_by(unfinished) if unfinished else self._find()
            resources = self._pulumi.resources()
            if resources and not unfinished:
                raise RecoveryError(f"the stack {name} already exists: choose a name that no stack has, with STACK=")
            self._check_agent(settings, unfinished)
            if not unfinished:
                planned = self._planned(settings, pair)
                self._check_settings(settings, planned)
                self._check_quotas(planned)
            self._check_record(unfinished or planned)
            taken = taken_at(pair)
            print(f"Backup {pair.id} of {self._source.name}, {age(taken, utc_now())} old")
        with self.phases("fence"):
            self._fence(pair)
        if not unfinished:
            if self._target.region != pair.server.region:
                with self.phases("copy"):
                    source, target = self._ec2(pair.server.region), self._ec2(self._target.region)
                    pair = copies.copy_pair(pair, source, target, tags={})
            stack_file.write(self._pulumi.file, self._restored(settings, pair))
        with self.phases("up"):
            if resources is not None:
                self._clean({each["id"] for each in resources})
            create(self._pulumi, settings, self._source.name, known=resources is not None)
            self._pulumi.up()
        print(f"Restored backup {pair.id} of {self._source.name} into {name}.")
        print(
            f"RPO: everything written after {taken:%Y-%m-%d %H:%M:%S} UTC is lost, {age(taken, utc_now())} until now."
        )
        print(f"RTO: {sum(self.phases.seconds.values()):.0f} s ({self.phases}).")
        print(f"Keep {self._pulumi.file.name}: it is the stack's settings file.")
        if stack_file.setting(settings, "hostedZoneId"):
            print(
                f"No up of {self._source.name} any more: it would take the domain's record back, and destroy delete it."
            )
            print(f"make destroy STACK={self._source.name} shows how to keep the record before it asks.")

    def _restored(self, settings: Document, pair: Pair) -> Document:
        chosen = self._chosen
        return stack_file.restored(
            settings, pair, former=self._source.name, zone=chosen.zone, overrides=dict(chosen.overrides)
        )

    def _planned(self, settings: Document, pair: Pair) -> Document:
        """The new settings, without the snapshots, which may be copied later."""
        server, registry = (
            dataclasses.replace(each, region=self._target.region) for each in (pair.server, pair.registry)
        )
        document = self._restored(settings, dataclasses.replace(pair, server=server, registry=registry))
        return stack_file.without_snapshots(document)

    def _check_settings(self, settings: Document, planned: Document) -> None:
        """Raise RecoveryError if `up` would refuse the new settings, since the former machines are stopped before it.
        What it would refuse of the former settings is a secret that is missing here.
        """
        known = stack_file.problems(settings)
        if found := [problem for problem in stack_file.problems(planned) if problem not in known]:
            raise RecoveryError(
                f"the settings of {self._pulumi.stack} would be invalid; nothing was changed. Correct them with SET=:"
                + "".join(f"\n- {problem}" for problem in found)
            )

    def _check_quotas(self, planned: Document) -> None:
        """Raise RecoveryError if `up` would reach a quota. The former machines, which are stopped before it, have no
        part in that; what the former stack has otherwise stays.
        """
        ec2 = self._target.client("ec2")
        fenced = leftovers.machines(ec2, self._source.tag, RUNNING) if self._in_its_region() else []
        types = quotas.instance_types(planned, {})
        quotas.check(ec2, self._target.client("service-quotas"), types, stopped=fenced)

    def _check_record(self, planned: Document) -> None:
        """Raise RecoveryError if AWS would refuse the domain's record, since the former machines are stopped before."""
        try:
            domain_record.check(self._target.client("route53"), planned)
        except (BotoCoreError, ClientError) as error:
            # The rest of the stack can be created, and the same command continues.
            _raise_unless_unavailable(error)
            print(f"Route 53 does not answer ({error}), so the domain's record was not checked.")

    def _in_its_region(self) -> bool:
        """Whether the new stack is in the region of the former one."""
        return self._target.region == self._source.region

    def _clean(self, known: set[str]) -> None:
        """Remove what hinders the next `up` after an engine that was killed: its lock, and what is not `known`."""
        self._pulumi.cancel()
        new = dataclasses.replace(self._target, name=self._pulumi.stack)
        sweep(new.client, new.tag, kinds=USERS_OF_NETWORKS, known=known)

    def _ec2(self, region: str) -> Any:  # noqa: ANN401, boto3 has no types
        return dataclasses.replace(self._source, region=region).client("ec2")

    def _unfinished(self) -> Document | None:
        """The new stack's file, if an interrupted run of this command left one."""
        if not self._pulumi.file.exists():
            return None
        document = stack_file.read(self._pulumi.file)
        if all(stack_file.snapshots(document)):
            return document
        raise RecoveryError(
            f"{self._pulumi.file.name} already exists and is not from a restore: choose a name that no stack has"
        )

    def _restored_by(self, unfinished: Document) -> Pair:
        """The backup that an interrupted run chose."""
        region = stack_file.region(unfinished)
        for pair in self._pairs(region):
            if stack_file.is_of(unfinished, pair):
                if self._chosen.backup not in (catalogue.LATEST, pair.id):
                    break
                self._refuse_other_settings(unfinished)
                if self._chosen.backup == catalogue.LATEST:
                    self._refuse_older(pair)
                self._target = dataclasses.replace(self._target, region=region)
                print(f"continuing the restore of {self._pulumi.file.name}")
                return pair
        raise RecoveryError(
            f"{self._pulumi.file.name} restores snapshots that are not this backup, or that no longer exist: choose "
            "another name, or destroy that stack and delete the file"
        )

    def _refuse_older(self, pair: Pair) -> None:
        """Raise RecoveryError if there is a backup from after the stack's file was written: the former machines were
        stopped before, so they have been started again, and the restore was given up.
        """
        written = datetime.datetime.fromtimestamp(self._pulumi.file.stat().st_mtime, datetime.UTC)
        try:
            newest = catalogue.find(self._pairs(self._source.region))
        except (BotoCoreError, ClientError, RecoveryError) as error:
            if not isinstance(error, RecoveryError):
                _raise_unless_unavailable(error)
            return
        if taken_at(newest) > written:
            new = self._pulumi.stack
            raise RecoveryError(
                f"{self._pulumi.file.name} restores the backup {pair.id}, but {newest.id} is newer. To continue that "
                f"restore: BACKUP={pair.id}. For a new one, if {new} is not in use: make destroy STACK={new}, then "
                f"pulumi stack rm {new}, which also deletes the file"
            )

    def _refuse_other_settings(self, unfinished: Document) -> None:
        """Raise RecoveryError if the command has other settings than the interrupted one, whose volumes may exist."""
        wanted = {stack_file.key(name): value for name, value in self._chosen.overrides}
        if self._chosen.zone:
            wanted[stack_file.key("availabilityZone")] = self._chosen.zone
        if self._chosen.region:
            wanted[stack_file.REGION] = self._chosen.region
        # Pulumi, which has written the file since, may have turned a number or a boolean into text.
        had = unfinished["config"]
        others = [f"{key}: {value}" for key, value in wanted.items() if _as_text(had.get(key)) != _as_text(value)]
        if others:
            raise RecoveryError(
                f"{self._pulumi.file.name} is from an interrupted restore and does not have {', '.join(others)}. "
                "Change it there and repeat the command without it; but if volumes exist already, a zone or region can "
                f"be changed only by a new restore: make destroy STACK={self._pulumi.stack}, and delete the file"
            )

    def _check_agent(self, settings: Document, unfinished: Document | None) -> None:
        """Raise RecoveryError if `up` could not log in, since the former machines are stopped before it."""
        overrides = {stack_file.key(name): value for name, value in self._chosen.overrides}
        # An interrupted run may not have copied the secrets yet.
        config = {**settings["config"], **(unfinished["config"] if unfinished else {}), **overrides}
        if config.get(stack_file.key("sshPrivateKey")):
            return
        if problem := ssh_agent.problem(str(config[stack_file.key("sshPublicKey")])):
            raise RecoveryError(f"sshPublicKey: sshPrivateKey is not set, and {problem}")

    def _pairs(self, region: str) -> list[Pair]:
        return catalogue.pairs(catalogue.snapshots(self._ec2(region), self._source.tag))

    def _find(self) -> Pair:
        """The wanted backup in the former stack's region, or a copy in the new one's if there is none."""
        try:
            return catalogue.find(self._pairs(self._source.region), self._chosen.backup)
        except (BotoCoreError, ClientError, RecoveryError) as error:
            if self._in_its_region():
                raise
            if not isinstance(error, RecoveryError):
                _raise_unless_unavailable(error)
            print(f"no backup in {self._source.region} ({error}); searching {self._target.region} for a copy")
            return catalogue.find(self._pairs(self._target.region), self._chosen.backup)

    def _fence(self, pair: Pair) -> None:
        """Stop the former machines. Otherwise two GitLabs would send mail, update mirrors and run jobs."""
        name, region = self._source.name, self._source.region
        ec2 = self._ec2(region)
        try:
            machines = leftovers.machines(ec2, self._source.tag, RUNNING)
        except (BotoCoreError, ClientError) as error:
            _raise_unless_unavailable(error)
            print(f"{region} does not answer ({error}), so the machines of {name} CANNOT BE STOPPED.")
            print(f"Run the command again as soon as it answers, with BACKUP={pair.id}: it stops them.")
            confirmation.confirm(name, yes=self._chosen.yes)
            return
        if not machines:
            print(f"no machine of {name} is running")
            return
        print(f"The machines of {name} are stopped first: {', '.join(machines)}.")
        print("What was written since the backup remains on their volumes.")
        confirmation.confirm(name, yes=self._chosen.yes)
        ids = " ".join(machines)
        print(f"Should they serve again: aws ec2 start-instances --region {region} --instance-ids {ids}")
        new = self._pulumi.stack
        print(f"then make destroy STACK={new}, pulumi stack rm {new}, and pulumi up --stack {name}, for DNS records.")
        try:
            ec2.stop_instances(InstanceIds=machines)
            ec2.get_waiter("instance_stopped").wait(InstanceIds=machines, WaiterConfig=STOPPED_WITHIN)
        except (BotoCoreError, ClientError) as error:
            if not isinstance(error, WaiterError):
                _raise_unless_unavailable(error)
            print(f"THE MACHINES OF {name} MAY STILL BE RUNNING: {error}")
            print(f"Continue to stop them: aws ec2 stop-instances --force --region {region} --instance-ids {ids}")


def create(
    pulumi: Pulumi, source: Document, source_name: str, *, known: bool, without: frozenset[str] = frozenset()
) -> None:
    """Create the stack, unless it is `known`, and copy the secrets that only Pulumi Cloud can decrypt. Idempotent."""
    if not known:
        decryption = source.get("secretsprovider") or ("passphrase" if "encryptionsalt" in source else None)
        pulumi.init(decryption)
    for key in stack_file.encrypted_keys(source):
        if key not in without:
            pulumi.copy_setting(key, source_name)


def taken_at(pair: Pair) -> datetime.datetime:
    """When a backup was taken. A copy was started later than its original, but has the same ID, which is a time."""
    try:
        identified = time_of(pair.id)
    except ValueError:
        return pair.started
    return pair.started if pair.started - identified < datetime.timedelta(minutes=10) else identified


def _raise_unless_unavailable(error: BotoCoreError | ClientError) -> None:
    """Raise an error that does not mean that the region is not available, such as a missing permission."""
    if isinstance(error, ClientError):
        if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
            raise error
    elif not isinstance(error, NoConnectionError | HTTPClientError):
        raise error


def _as_text(value: object) -> str:
    """A value as Pulumi's CLI writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _assignment(text: str) -> tuple[str, Any]:
    found = re.fullmatch(r"(\w+)=(.*)", text, re.DOTALL)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return found[1], stack_file.parsed(found[2])
