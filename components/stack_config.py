"""The stack's configuration, as the engine hands it to the program."""

import pulumi
from pulumi.runtime.config import CONFIG


class StackConfig(pulumi.Config):
    """`pulumi.Config` that can say as well which keys are there: the SDK gives only those that it is asked for by name.

    The engine hands over the whole configuration of the stack, of every namespace, with the defaults of Pulumi.yaml;
    the SDK's launcher puts it where this looks (pulumi-language-python-exec: set_all_config).
    """

    def names(self) -> list[str]:
        """Every key of this namespace that is set, without the namespace."""
        prefix = self.full_key("")
        return [key.removeprefix(prefix) for key in CONFIG.get() if key.startswith(prefix)]
