"""`preview` and `preview-diff` of the lab's command line."""

from pathlib import Path
from typing import Any

from lab.preview import engine
from lab.preview.difference import Plan, markdown
from lab.preview.stack_file import StackFile, ciphertexts, existing
from lab.preview.tree import Version, checked_out
from lab.workspace import ROOT, LabError, say


def preview(stack: str, state: Path | None) -> None:
    """Show what `pulumi up` of this clone's program would do on AWS, for a new stack or for the state in a file, and
    what the stack costs a month. Raises LabError if the stack file cannot be read or the program does not run.
    """
    version = Version("this clone", ROOT, stack)
    with engine.api(_existing(version)) as api:
        configuration = version.configuration(api)
        facts = version.facts(configuration)
        throwaway = engine.Throwaway(stack, version.project()["name"], api)
        if state is not None:
            throwaway.take(state)
        throwaway.configure(configuration)
        for key, why in configuration.secrets.items():
            say(f"using a placeholder for {key}, which is {why}")
        for named in _named(configuration, stack):
            say(f"assuming that {named} exists in AWS and matches the settings")
        throwaway.show_preview(ROOT)
    say(facts["costTable"])


def save_state(stack: str, file: Path) -> None:
    """Write the state that a stack of this clone's program would have, without creating it."""
    version = Version("this clone", ROOT, stack)
    with engine.api(_existing(version)) as api:
        throwaway, _ = _brought_up(version, api)
        throwaway.save(file)
    say(f"{file}: the state of a stack {stack}, with placeholders for IDs and addresses")


def preview_diff(stack: str, base_commit: str, head_folder: Path = ROOT) -> str:
    """Return as Markdown what the files in a folder, by default this clone's, change on a stack of another commit.

    Raises LabError if a stack file cannot be read or either program does not run.
    """
    head_version = Version("this change", head_folder, stack)
    head_version.stack_file()  # fails early if it cannot be read
    with checked_out(base_commit) as folder:
        base_version = Version(f"`{base_commit}`", folder, stack)
        with engine.api(_existing(base_version, head_version)) as api:
            _, head = _brought_up(head_version, api)
            throwaway, base = _brought_up(base_version, api)
            configuration = head_version.configuration(api)
            throwaway.configure(configuration)
            say(f"previewing {head.label} on a stack of {base.label} …")
            try:
                steps = throwaway.preview(head_folder)["steps"]
            except LabError as error:
                raise LabError(f"{head.label} cannot be previewed on a stack of {base.label}:\n{error}") from None
    return markdown(stack, base, head, steps, configuration.secrets)


def _existing(*versions: Version) -> dict[str, Any]:
    """Return the existing AWS resources in the settings of these versions, tagged as this stack's."""
    version = versions[-1]
    owner = {"gitlab-stack": f"{version.project()['name']}/{version.stack}"}
    configurations = (each.configuration("") for each in versions)
    return {**existing(*configurations, stack=version.stack), "tags": owner}


def _brought_up(version: Version, api: str) -> tuple[engine.Throwaway, Plan]:
    """Run a version of the program on a temporary stack without creating anything; returns the stack and its plan."""
    say(f"planning {version.label} …")
    configuration, project = version.configuration(api), version.project()["name"]
    facts = version.facts(configuration)
    throwaway = engine.Throwaway(version.stack, project, api)
    throwaway.configure(configuration)
    try:
        throwaway.bring_up(version.folder, version.answers())
    except LabError as error:
        raise LabError(f"the program of {version.label} does not run:\n{error}") from None
    plan = Plan(
        label=version.label,
        resources={resource["urn"]: resource for resource in throwaway.resources()},
        flows=facts["flows"],
        cost=facts["cost"],
        ciphertexts=ciphertexts(version.stack_file(), project),
    )
    return throwaway, plan


def _named(configuration: StackFile, stack: str) -> list[str]:
    there = existing(configuration, stack=stack)
    volumes = [each.get("snapshot", each["id"]) for each in there["volumes"]]
    zones = [each["id"] for each in there["hosted_zones"]]
    certificates = [each["arn"] for each in there["certificates"]]
    return [*there["images"], *volumes, *there["addresses"], *zones, *certificates]
