"""The command `drill`: restores a backup into a silenced copy of the stack, checks it, and destroys it.

The copy is the stack `<stack>-drill`, always with that name: a drill first removes what an interrupted one left. The
result is stored as a tag of the backup's snapshots.
"""

import argparse
import dataclasses
import datetime
import ipaddress
import json
import urllib.request
from decimal import Decimal
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from configuration import cost
from configuration.flows import MACHINES, Place
from programs.volume_backup.backup import age, utc_now
from recovery import catalogue, copies, keys, leftovers, quotas, stack_file
from recovery.backups import stale_after
from recovery.catalogue import Pair
from recovery.copy_checks import Verdict, check_copy
from recovery.errors import RecoveryError
from recovery.phases import Phases
from recovery.pulumi_cli import Pulumi, exclusive, interruptible, uninterruptible
from recovery.restore import add_arguments, create, read_source, taken_at
from recovery.stack import Stack
from recovery.sweep import USERS_OF_NETWORKS, sweep
from settings import MachineSettings

COPY = "gitlab-drill-copy"
"""The tag of snapshots that were copied to another region for a drill, with the tag value of its stack."""

WHAT_IS_MY_ADDRESS = "https://checkip.amazonaws.com"

OWN_SECRETS = ("certificateKeyPem", "sshPrivateKey")
"""Secret settings that a drill does not copy, but generates."""


RESULTS = {True: "passed", False: "failed"}

CHARGED = {"up", "check", "destroy"}
"""Phases in which the copy exists."""

KEPT = """\
The copy {stack} is kept, and costs money until it is destroyed.
  its addresses      pulumi stack output publicAddresses --stack {stack}
  its private key    pulumi config get {key} --stack {stack} > KEY; chmod 600 KEY; ssh -i KEY ec2-user@ADDRESS
  its GitLab         https://{domain}, after an entry for the load balancer's address in /etc/hosts
  to destroy it      the next drill, or: pulumi destroy --remove --stack {stack}"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("drill", help="restore a backup into a silenced copy, check it, and destroy it")
    parser.add_argument("--stack", required=True, metavar="NAME", help="the stack whose backup is restored")
    add_arguments(parser)
    parser.add_argument("--caller", type=_network, metavar="CIDR", help="admitted network (default: your own address)")
    parser.add_argument("--keep", action="store_true", help="do not destroy the copy; the next drill does")
    parser.add_argument(
        "--check-limit", type=_minutes, metavar="MINUTES", help="checks that take longer in total have failed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Run a drill. Returns the exit status: 1 if the copy did not come up, if a check failed, if the newest backup is
    old, if the result could not be stored, or if a part of the copy is left.
    """
    source = read_source(chosen.stack, chosen.settings)
    with exclusive() as lock, interruptible():
        return Drill(source, Pulumi(f"{source.name}-drill", lock=lock), chosen).run()


class Drill:
    """One run of the command."""

    def __init__(self, source: Stack, pulumi: Pulumi, chosen: argparse.Namespace) -> None:
        self._source = source
        self._pulumi = pulumi
        self._chosen = chosen
        self._copy = dataclasses.replace(source, name=pulumi.stack, region=chosen.region or source.region)
        self._settings = stack_file.read(source.settings or pulumi.folder / stack_file.name(source.name))
        self._copy_tag = {COPY: self._copy.tag}
        self.phases = Phases()

    def run(self) -> int:
        """Remove what an interrupted drill left, bring the copy up, check it, store the result, and destroy it."""
        with self.phases("clean"), uninterruptible():
            self._remove()
        with self.phases("find"):
            ec2 = self._source.client("ec2")
            pairs = catalogue.pairs(catalogue.snapshots(ec2, self._source.tag))
            pair = catalogue.find(pairs, self._chosen.backup)
            types = quotas.instance_types(self._settings, dict(self._chosen.overrides))
            quotas.check(self._copy.client("ec2"), self._copy.client("service-quotas"), types)
            caller = self._chosen.caller or own_network()
        started = utc_now()
        limit = stale_after(pairs, self._source.schedule)
        stale = self._chosen.backup == catalogue.LATEST and started - taken_at(pair) > limit
        print(f"Backup {pair.id} of {self._source.name}, {age(taken_at(pair), started)} old")
        try:
            verdict, failure = self._attempt(pair, caller)
            passed = verdict is not None and verdict.passed
            print(verdict.table() if verdict else f"The copy could not be checked: {failure}")
            stored = _stored(ec2, pair, f"{started:%Y-%m-%d} {RESULTS[passed]}")
        finally:
            left = self._end()
        self._report(pair, started, verdict, failure, left)
        if stale:
            print(
                f"The newest complete backup is older than twice the interval of backupSchedule "
                f"({self._source.schedule}): make doctor STACK={self._source.name} names the machine whose backups fail"
            )
        return int(not passed or bool(left) or stale or not stored)

    def _attempt(self, pair: Pair, caller: str) -> tuple[Verdict | None, str]:
        """The verdict on the copy, or the reason why there is none. Any error means that the backup is not usable."""
        try:
            return self._restore_and_check(pair, caller), ""
        except RecoveryError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001, a drill without a result must not pass for a good one
            return None, f"{type(error).__name__}: {error}"

    def _restore_and_check(self, pair: Pair, caller: str) -> Verdict:
        restored = pair
        if self._copy.region != pair.server.region:
            with self.phases("copy"):
                source, target = self._source.client("ec2"), self._copy.client("ec2")
                restored = copies.copy_pair(pair, source, target, tags=self._copy_tag)
        ssh, tls = keys.key_pair(self._pulumi.stack), keys.server_certificate(stack_file.DRILL_DOMAIN)
        document = stack_file.drilled(
            self._settings,
            restored,
            former=self._source.name,
            caller=caller,
            public_key=ssh.public,
            certificate=tls.certificate,
            authority=tls.authority,
            zone=self._chosen.zone,
            overrides=dict(self._chosen.overrides),
        )
        with self.phases("up"):
            stack_file.write(self._pulumi.file, document)
            without = frozenset(map(stack_file.key, (*OWN_SECRETS, *stack_file.NOT_IN_A_DRILL)))
            create(self._pulumi, self._settings, self._source.name, known=False, without=without)
            for name, value in zip(OWN_SECRETS, (tls.private_key, ssh.private), strict=True):
                self._pulumi.set_secret(stack_file.key(name), value)
            self._pulumi.up()
        with self.phases("check"):
            inspection, url = self._pulumi.output("inspection"), self._pulumi.output("externalUrl")
            return check_copy(inspection, pair, external_url=url, limit=self._chosen.check_limit)

    def _end(self) -> str:
        """Destroy the copy, or describe how to use it if it is kept. Returns what is left against the user's will."""
        if self._chosen.keep:
            print(
                KEPT.format(
                    stack=self._pulumi.stack, domain=stack_file.DRILL_DOMAIN, key=stack_file.key("sshPrivateKey")
                )
            )
            return ""
        try:
            with uninterruptible(), self.phases("destroy"):
                self._remove()
        except (BotoCoreError, ClientError, RecoveryError) as error:
            left = f"The copy was not removed completely, and costs money: {error}\nThe next drill tries it again."
            print(left)
            return left
        return ""

    def _remove(self) -> None:
        """Remove everything that a drill of this stack has created. Idempotent."""
        left_behind = self._pulumi.file.exists()
        region = stack_file.region(stack_file.read(self._pulumi.file)) if left_behind else self._copy.region
        copy = dataclasses.replace(self._copy, region=region)
        resources = self._pulumi.resources()
        if resources is not None:
            if not left_behind:
                stack_file.write(self._pulumi.file, stack_file.left_over(self._settings, region))
            self._destroy(copy, {each["id"] for each in resources})
            self._pulumi.remove()
        for each in {region, self._copy.region}:
            copies.delete_copies(dataclasses.replace(copy, region=each).client("ec2"), self._copy_tag)
        self._pulumi.file.unlink(missing_ok=True)

    def _destroy(self, copy: Stack, known: set[str]) -> None:
        self._pulumi.cancel()
        sweep(copy.client, copy.tag, kinds=USERS_OF_NETWORKS, known=known)
        try:
            self._pulumi.destroy()
        except RecoveryError:
            # A resource that Pulumi does not know may use one that it cannot delete.
            sweep(copy.client, copy.tag)
            self._pulumi.destroy()
        if leftovers.remaining(copy.client, copy.tag):
            sweep(copy.client, copy.tag)
            if left := leftovers.remaining(copy.client, copy.tag):
                raise RecoveryError(f"these resources of {copy.tag} still exist: {', '.join(map(str, left))}")

    def _report(self, pair: Pair, started: datetime.datetime, verdict: Verdict | None, failure: str, left: str) -> None:
        result = RESULTS[verdict is not None and verdict.passed]
        price = dollars_of(
            self._settings,
            self._copy.region,
            sum(self.phases.seconds[name] for name in CHARGED & set(self.phases.seconds)),
        )
        lost = started - taken_at(pair)
        up = self.phases.seconds.get("up")
        print(f"Drill of {self._source.name}, backup {pair.id}: {result.upper()}")
        print(f"RPO: the backup was {age(taken_at(pair), started)} old" + newest_event(verdict))
        print(f"RTO: {up:.0f} s from the start of up to the end of the acceptance" if verdict else "RTO: none")
        print(f"Time: {self.phases}")
        print(f"Cost: about {price}")
        if self._chosen.json:
            document = {
                "stack": self._source.name,
                "backup": pair.id,
                "started": started.isoformat(),
                "failure": failure,
                "left": left,
                "rpoSeconds": lost.total_seconds(),
                "rtoSeconds": up if verdict else None,
                "phases": self.phases.seconds,
                "cost": price,
                **(verdict.as_json() if verdict else {"passed": False, "newestEventSeconds": None, "checks": []}),
            }
            self._chosen.json.write_text(json.dumps(document, indent=2) + "\n")


def _stored(ec2: copies.Client, pair: Pair, result: str) -> bool:
    """Whether the result could be stored as a tag of the backup. A drill has a report without it, too."""
    try:
        copies.tag_result(ec2, pair, result)
    except (BotoCoreError, ClientError) as error:
        print(f"The result could not be stored as the tag {catalogue.DRILLED} of the backup: {error}")
        return False
    return True


def newest_event(verdict: Verdict | None) -> str:
    """How much older than the backup the newest event in the copy is."""
    return f", and the newest event in it {verdict.rpo} older" if verdict and verdict.rpo is not None else ""


def own_network() -> str:
    """The address from which this machine reaches AWS, as a network."""
    try:
        with urllib.request.urlopen(WHAT_IS_MY_ADDRESS, timeout=10) as answer:
            return _network(answer.read(64).decode("ascii").strip())
    except (OSError, ValueError, argparse.ArgumentTypeError) as error:
        raise RecoveryError(
            f"{WHAT_IS_MY_ADDRESS} does not report this machine's address ({error}): set it with CALLER=, for example "
            "198.51.100.7/32"
        ) from None


def dollars_of(settings: stack_file.Document, region: str, seconds: float) -> str:
    """What a copy costs that exists for so long."""
    machines = {place: machine_of(settings, place) for place in MACHINES}
    hours = Decimal(str(round(seconds))) / 3600
    return cost.dollars(cost.total(cost.running(machines, region)) / cost.HOURS * hours)


def machine_of(settings: stack_file.Document, place: Place) -> MachineSettings:
    """The type and the volumes of a machine."""
    data = stack_file.setting(settings, f"{place}DataVolumeSize")
    return MachineSettings(
        instance_type=str(stack_file.setting(settings, f"{place}InstanceType")),
        root_volume_size=int(stack_file.setting(settings, f"{place}RootVolumeSize")),
        data_volume_size=None if data is None else int(data),
    )


def _minutes(text: str) -> float:
    """The seconds of some minutes."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return int(text) * 60.0


def _network(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 network: {error}") from None
