"""Records the AWS resources and the steps of a stack: `python -m tests.recorded_resources`.

Existing stacks were created by an earlier version. A test compares this version with the record, so that no change of
the code creates, replaces or deletes an AWS resource unnoticed. Commit the new record with an intended change.
"""

import json
from pathlib import Path
from typing import Any

from tests.conftest import dev_config, requested_certificate_config, tls_config
from tests.engine import Graph, run_program

FILE = Path(__file__).with_name("recorded_resources.json")


def described(graph: Graph) -> dict[str, Any]:
    """Every custom resource by its URN, with its inputs except those whose changes are ignored. Inputs of a step are
    omitted, because a changed step just runs again.
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
    """Write the record of this version."""
    record = {
        "dev": described(run_program(dev_config())),
        "tls": described(run_program(tls_config())),
        "requested": described(run_program(requested_certificate_config(hostedZoneId="Z0123456789ABC"))),
    }
    FILE.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
