"""What a version of the program says of itself: its flows and its cost.

Run as a program of its own in the folder of that version, so that its own code is asked: `python describe.py` with a
JSON object on standard input, `config` and `secrets` as in stack_file.py.
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
    """A namespace of the configuration, which the version that is asked reads as on AWS: by the SDK itself."""

    def names(self) -> list[str]:
        """Every key of this namespace that is set, without the namespace."""
        prefix = self.full_key("")
        return [key.removeprefix(prefix) for key in CONFIG.get() if key.startswith(prefix)]


def describe(project: str, config: Mapping[str, str], secrets: list[str]) -> dict[str, Any]:
    """The facts of the version that is imported from here."""
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
    """Where a flow leads; an older version knows no networks of one flow."""
    named = getattr(flow, "networks", ())
    return f"{flow.target} ({', '.join(named)})" if named else str(flow.target)


def _port(flow: Any) -> int | str:
    """Its port; an older version knows TCP alone."""
    protocol = getattr(flow, "protocol", "tcp")
    return flow.port if protocol == "tcp" else f"{flow.port} ({protocol})"


def _cost(settings: Any) -> dict[str, Any]:
    """The items of the month and their table; nothing for a version that knew nothing of cost."""
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
    except ValueError as error:  # the settings' own words
        sys.exit(str(error))
    json.dump(facts, sys.stdout)


if __name__ == "__main__":
    main()
