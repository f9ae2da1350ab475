"""The role with which a machine takes backups."""

import json

import pulumi
import pulumi_aws as aws

from components.naming import account_wide, owned_path, stack_tag, tagged
from configuration.backup_policy import backup_policy, keep_of, trust_policy
from configuration.flows import Place
from settings import Settings


class BackupRole(pulumi.ComponentResource):
    """A role, and the instance profile through which a machine gets it. It may do nothing until `allow` is called.

    The profile has to exist before the machine; it takes some seconds until EC2 knows it, during which the provider
    repeats its calls (terraform-provider-aws, internal/service/ec2/ec2_instance.go).
    """

    def __init__(self, role: Place, settings: Settings, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("gitlab:backups:BackupRole", role.value, None, opts)
        self._role = role
        self._settings = settings
        name, tags = account_wide(role.value), tagged(settings, role.value)
        own = pulumi.ResourceOptions(parent=self)
        self._resource = aws.iam.Role(
            role.value,
            name=name,
            path=owned_path(),
            description=f"Backups of the data volume of the {role} machine",
            assume_role_policy=json.dumps(trust_policy(settings.region)),
            permissions_boundary=settings.permissions_boundary,
            tags=tags,
            opts=own,
        )
        self.profile = aws.iam.InstanceProfile(
            # Pulumi adds a random suffix. A machine keeps the profile that is deleted when its backups are turned off,
            # and the provider replaces it by a later one only if the name differs.
            name,
            path=owned_path(),
            role=self._resource.name,
            tags=tags,
            opts=own,
        )
        self.register_outputs({})

    def allow(self, volume_arn: pulumi.Input[str]) -> aws.iam.RolePolicy:
        """Allow backups of this volume."""
        keep, stack = keep_of(self._settings), stack_tag()
        return aws.iam.RolePolicy(
            self._role.value,
            name="backups",
            role=self._resource.name,
            policy=pulumi.Output.from_input(volume_arn).apply(
                lambda arn: json.dumps(backup_policy(volume_arn=arn, stack=stack, role=self._role, keep=keep))
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
