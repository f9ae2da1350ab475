"""A machine on which steps run over SSH: the only code that creates remote commands."""

import hashlib
from collections.abc import Sequence

import pulumi
import pulumi_aws as aws
from pulumi_command import remote

from configuration.flows import Place
from configuration.remote_step import (
    host_key_command,
    prepare_command,
    prepare_input,
    script,
    step_command,
    step_input,
)

LOGIN_USER = "ec2-user"
DIAL_ATTEMPTS = 60  # about 4.5 minutes if connections are refused, 20 minutes if they time out
DIAL_TIMEOUT = 15  # seconds
BY_AGENT = "ssh-agent"
KEY_REFUSED = "unable to authenticate"  # golang.org/x/crypto/ssh, used by pulumi-command
STEP_LIMIT = 45 * 60  # seconds that `up` waits for a step, and before that for another running step
JOBS_LIMIT = 2 * 60 * 60
"""Seconds for a step that lets running jobs finish before it installs: half an hour for the jobs, the rest for dnf."""
MIGRATION_LIMIT = 6 * 60 * 60
"""Seconds for a step that may migrate a database: pg_upgrade and migrations of about 100 GB take hours."""


class RemoteHost:
    """Runs the steps of one machine: after its first boot, one at a time, with the host key pinned on first contact.

    The host key is read once per machine, by the only step that does not verify it; this step does nothing else and
    gets no input. The key is kept until the machine is replaced (docs/adr/0003).

    All other steps run again if their script, arguments or payload change, and on a new machine; none is undone when
    the machine is deleted. Secrets are sent only on standard input, and while a step runs, only its output to file
    descriptor 4 is shown.
    """

    def __init__(
        self,
        role: Place,
        *,
        address: pulumi.Input[str],
        instance: aws.ec2.Instance,
        public_key: str,
        private_key: str | None,
        open_ports: Sequence[int],
        parent: pulumi.Resource,
    ) -> None:
        self.role = role
        self._address = address
        self._instance = instance
        self._instance_id = instance.id
        self._private_key = None if private_key is None else pulumi.Output.secret(private_key)
        self._refusal = _refusal(role, pulumi.Output.from_input(address), public_key)
        self._inputs: list[pulumi.Output[str]] = [instance.id, instance.instance_type]
        self._host_key = self._kept_host_key(parent)
        self._prepared = self._command(
            "prepare-host",
            prepare_command(open_ports),
            prepare_input(),
            parent=parent,
            after=[],
            secret_result=False,
        )
        self.ssh_access = {"address": address, "hostKey": self._host_key}
        """The machine's address and host key; a login also needs the user and the private key."""

    def run(
        self,
        step: str,
        *,
        parent: pulumi.Resource,
        arguments: Sequence[pulumi.Input[str]] = (),
        payload: Sequence[pulumi.Input[str] | bytes] = (),
        after: Sequence[pulumi.Resource] = (),
        triggers: Sequence[pulumi.Input[str]] = (),
        secret_result: bool = False,
        shows_progress: bool = False,
        limit: int = STEP_LIMIT,
        read_only: bool = False,
        name: str | None = None,
        former_name: str | None = None,
    ) -> "Step":
        """Run remote/<step>.sh with `arguments`, and with each part of `payload` as a line of standard input.

        A changed trigger runs the step again. After `limit` seconds the operation fails, but the step continues, and
        the next step on that machine waits for it; a `read_only` step is terminated instead. With `secret_result`, its
        output is a secret. With `shows_progress`, the engine shows only what the script writes to file descriptor 4.
        `name` distinguishes two runs of the same script. `former_name` is the step's name in an earlier version, so
        that existing stacks keep the step's resource.
        """
        step_name = name or step
        command = self._command(
            step_name.replace("_", "-"),
            pulumi.Output.all(*arguments).apply(
                lambda given: step_command(step_name, limit, given, ended_at_limit=read_only)
            ),
            pulumi.Output.all(*payload).apply(lambda parts: step_input(script(f"{step}.sh"), parts)),
            parent=parent,
            after=[self._prepared, *after],
            triggers=triggers,
            secret_result=secret_result,
            shows_progress=shows_progress,
            former_name=former_name and former_name.replace("_", "-"),
        )
        return Step(command, secret_result)

    @property
    def fingerprint(self) -> pulumi.Output[str]:
        """Changes if the machine is replaced, its type changes, or the input of any step so far has changed."""
        return pulumi.Output.all(*self._inputs).apply(
            lambda inputs: hashlib.sha256("\0".join(inputs).encode()).hexdigest()
        )

    def _kept_host_key(self, parent: pulumi.Resource) -> pulumi.Output[str]:
        """The machine's host key as reported on first contact; it is read again only from a new machine.

        The command does not run again if its text, address or key changes: after the first run, all inputs except the
        triggers are ignored. If it is recreated nevertheless, the stash keeps the first result.
        """
        name = f"{self.role}-host-key"
        first_contact = remote.Command(
            name,
            connection=self._connection(None),
            create=host_key_command(),
            # The ignored connection contains a private key that was in the settings. Once the key is removed there, the
            # command is recreated, so that the key is removed from the state as well.
            triggers=[self._instance_id, *([] if self._private_key else [BY_AGENT])],
            logging=remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=self._options(
                parent,
                ignore_changes=["addPreviousOutputInEnv", "connection", "create", "logging", "stdin"],
                # The former command printed the key too, and did more.
                aliases=[pulumi.Alias(name=f"{self.role}-first-contact")],
            ),
        )
        kept = pulumi.Stash(
            name,
            input=pulumi.Output.unsecret(first_contact.stdout),
            opts=pulumi.ResourceOptions(parent=parent, ignore_changes=["input"], replacement_trigger=self._instance_id),
        )
        return kept.output

    def _command(
        self,
        name: str,
        create: pulumi.Input[str],
        stdin: pulumi.Input[str],
        *,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource],
        secret_result: bool,
        triggers: Sequence[pulumi.Input[str]] = (),
        shows_progress: bool = False,
        former_name: str | None = None,
    ) -> remote.Command:
        self._inputs += [pulumi.Output.from_input(create), pulumi.Output.from_input(stdin)]
        return remote.Command(
            f"{self.role}-{name}",
            connection=self._connection(self._host_key),
            create=create,
            stdin=stdin,
            triggers=[self._instance_id, *triggers],
            # run-step uses standard error only for file descriptor 4, until it reports why the step failed.
            logging=remote.Logging.STDERR if shows_progress else remote.Logging.NONE,
            add_previous_output_in_env=False,
            opts=self._options(
                parent,
                depends_on=list(after),
                additional_secret_outputs=["stdout", "stderr"] if secret_result else None,
                aliases=[pulumi.Alias(name=f"{self.role}-{former_name}")] if former_name else None,
            ),
        )

    def _connection(self, host_key: pulumi.Output[str] | None) -> remote.ConnectionArgs:
        return remote.ConnectionArgs(
            host=self._address,
            user=LOGIN_USER,
            private_key=self._private_key,
            host_key=host_key,
            dial_error_limit=DIAL_ATTEMPTS,
            per_dial_timeout=DIAL_TIMEOUT,
        )

    def _options(
        self,
        parent: pulumi.Resource,
        *,
        depends_on: list[pulumi.Resource] | None = None,
        additional_secret_outputs: list[str] | None = None,
        aliases: list[pulumi.Alias] | None = None,
        ignore_changes: list[str] | None = None,
    ) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=parent,
            depends_on=depends_on,
            additional_secret_outputs=additional_secret_outputs,
            aliases=aliases,
            ignore_changes=ignore_changes,
            deleted_with=self._instance,
            # Otherwise a step would run on a new machine before the old machine's step is deleted.
            delete_before_replace=True,
            hooks=pulumi.ResourceHookBinding(on_error=[self._refusal]),
        )


def _refusal(role: Place, address: pulumi.Output[str], public_key: str) -> pulumi.ErrorHook:
    """Reports which machine rejects the settings' key and what to do, instead of the plugin's own SSH error."""

    async def explain(failed: pulumi.ErrorHookArgs) -> bool:
        if KEY_REFUSED in failed.errors[0]:
            # The engine shows the exception of a hook as the error of the failed step.
            raise PermissionError(
                f"the {role} machine at {await address.future()} does not accept the key pair of sshPublicKey. Add "
                f"this line to /home/{LOGIN_USER}/.ssh/authorized_keys there, then run pulumi up again: "
                f"{public_key.strip()}"
            )
        return False

    return pulumi.ErrorHook(f"{role}-key-refused", explain)


class Step:
    """A step and its output."""

    def __init__(self, command: remote.Command, secret_result: bool) -> None:
        self.command = command
        # The connection contains a private key, so the engine may treat every output of the command as secret.
        self.result: pulumi.Output[str] = (
            pulumi.Output.secret(command.stdout) if secret_result else pulumi.Output.unsecret(command.stdout)
        )
