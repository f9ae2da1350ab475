"""The stack's configuration, as the engine passes it to the program."""

import pulumi
from pulumi.runtime.config import CONFIG


class StackConfig(pulumi.Config):
    """`pulumi.Config` that can also list the keys that are set: the SDK can only look up a key by name.

    The engine passes the stack's whole configuration, with all namespaces and the defaults of Pulumi.yaml; the SDK's
    launcher stores it in CONFIG (pulumi-language-python-exec: set_all_config).
    """

    def names(self) -> list[str]:
        """Every key of this namespace that is set, without the namespace."""
        prefix = self.full_key("")
        return [key.removeprefix(prefix) for key in CONFIG.get() if key.startswith(prefix)]
