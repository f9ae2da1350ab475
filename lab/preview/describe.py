"""Reports the flows and the cost of a version of the program.

Runs in a separate process in the folder of that version, so that the version's own code is used: `python describe.py`
with a JSON object on standard input, `config` and `secrets` as in stack_file.py.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, set_all_config


class Reader(pulumi.Config):
    """A namespace of the configuration, which the version reads with the SDK, as on AWS."""

    def names(self) -> list[str]:
        """Return the keys that are set in this namespace, without its prefix."""
        prefix = self.full_key("")
        return [key.removeprefix(prefix) for key in CONFIG.get() if key.startswith(prefix)]


def describe(project: str, config: Mapping[str, str], secrets: list[str]) -> dict[str, Any]:
    """Import the version's code and return its facts."""
    set_all_config(dict(config))
    settings = importlib.import_module("settings").Settings.load(
        Reader(project), Reader("aws"), is_secret=lambda key: f"{project}:{key}" in secrets
    )
    flows = importlib.import_module("configuration.flows").flows(settings)
    return {
        "flows": [[str(flow.source), _where(flow), _port(flow), flow.why] for flow in flows],
        **_cost(settings),
    }


def _where(flow: Any) -> str:
    """Return a flow's target; in older versions, flows have no networks of their own."""
    named = getattr(flow, "networks", ())
    return f"{flow.target} ({', '.join(named)})" if named else str(flow.target)


def _port(flow: Any) -> int | str:
    """Return a flow's port; older versions support only TCP."""
    protocol = getattr(flow, "protocol", "tcp")
    return flow.port if protocol == "tcp" else f"{flow.port} ({protocol})"


def _cost(settings: Any) -> dict[str, Any]:
    """Return the monthly cost items and their table; None and an empty table if the version does not compute costs."""
    try:
        cost = importlib.import_module("configuration.cost")
    except ModuleNotFoundError as error:
        if error.name != "configuration.cost":
            raise
        return {"cost": None, "costTable": ""}
    lines = cost.cost(settings)
    items = [[line.item, None if line.monthly is None else str(line.monthly)] for line in lines]
    return {"cost": items, "costTable": cost.cost_table(lines)}


def main() -> None:
    sys.path[:] = [str(Path.cwd()), *(folder for folder in sys.path if folder != str(Path(__file__).parent))]
    given = json.load(sys.stdin)
    try:
        facts = describe(given["project"], given["config"], given["secrets"])
    except ValueError as error:  # the settings' error message
        sys.exit(str(error))
    json.dump(facts, sys.stdout)


if __name__ == "__main__":
    main()
