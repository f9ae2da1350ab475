"""What the AWS resources and the steps of a stack were when they were last recorded.

`python -m tests.recorded_resources` records them. A stack that exists was made by an earlier version. A test compares
this version with the record, so that no change of the code creates, replaces or deletes a resource of AWS unnoticed; a
change that is wanted is recorded with it.
"""

import json
from pathlib import Path
from typing import Any

from tests.conftest import dev_config, tls_config
from tests.engine import Graph, run_program

FILE = Path(__file__).with_name("recorded_resources.json")


def described(graph: Graph) -> dict[str, Any]:
    """Every custom resource by its URN: its inputs, unless a change of them is ignored; of a step its being there only,
    as a step whose text has changed just runs again.
    """
    return {
        resource.urn: {
            name: value for name, value in resource.inputs.items() if name not in resource.request.ignoreChanges
        }
        if resource.type.startswith("aws:")
        else {}
        for resource in graph.resources
        if resource.request.custom
    }


def main() -> None:
    """Record this version."""
    record = {"dev": described(run_program(dev_config())), "tls": described(run_program(tls_config()))}
    FILE.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
