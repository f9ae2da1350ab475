"""Renders the effects of a change of the program as Markdown: pure functions of two plans."""

import difflib
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from lab.engine.properties import SECRET, SIGNATURE, UNKNOWN

CRITICAL = {
    "aws:ec2/instance:Instance": "machine",
    "aws:ebs/volume:Volume": "data volume",
    "aws:ec2/eip:Eip": "address",
}
"""Types whose loss a reviewer must not overlook."""

STACK = "pulumi:pulumi:Stack"
COMMAND = "command:remote:Command"

WORDS = {"replace": "replaced", "delete": "deleted", "import": "imported", "create": "created", "update": "updated"}
STEP_WORDS = {
    "create": "runs for the first time",
    "update": "runs again",
    "replace": "runs again",
    "delete": "is removed",
}
"""Operations on a resource, and on a remote step, which runs again when it is replaced."""

OPTIONS = ("protect", "retainOnDelete", "ignoreChanges", "deletedWith", "customTimeouts", "additionalSecretOutputs")
"""Resource options: a change of them does not yet change anything in AWS."""

HIDDEN = "(secret)"
LONGEST = 60  # characters of a value that is shown in full
CONTEXT = 16  # characters shown before and after a difference in a longer value

Path = str


@dataclass(frozen=True)
class Plan:
    """One version of the program: the state of its stack, by URN, and the facts that its own code reports."""

    label: str
    resources: Mapping[str, Mapping[str, Any]]
    flows: Sequence[Sequence[Any]]
    cost: Sequence[tuple[str, str | None]] | None
    ciphertexts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """The change of one resource: `what` is the operation for a reader, and `inputs` has one line for each change."""

    what: str
    type: str
    name: str
    inputs: tuple[str, ...]


def markdown(
    stack: str, base: Plan, head: Plan, steps: Sequence[Mapping[str, Any]], placeholders: Mapping[str, str]
) -> str:
    """Render the difference for a stack created by `base`; `steps` is the preview of `head` on that stack."""
    changes, later = resource_changes(steps), later_changes(base, head, steps)
    opened, closed = flow_changes(base, head)
    costs = cost_changes(base, head)
    encrypted = sorted(
        key for key in {*base.ciphertexts, *head.ciphertexts} if base.ciphertexts.get(key) != head.ciphertexts.get(key)
    )
    if not (changes or later or opened or closed or costs or encrypted):
        return f"No difference: a stack `{stack}` of {base.label} does not change.\n"
    blocks = [f"## What this changes on a stack `{stack}` of {base.label}", *_warnings(base, changes, later)]
    blocks += _resources(changes)
    blocks += _later(later)
    blocks += _flows(opened, closed)
    blocks += _cost(base, head, costs)
    if encrypted:
        names = ", ".join(f"`{key}`" for key in encrypted)
        blocks.append(f"Re-encrypted in the stack file, and therefore possibly changed: {names}.")
    if placeholders:
        names = ", ".join(f"`{key}` ({why})" for key, why in sorted(placeholders.items()))
        blocks.append(f"Secrets with a placeholder, which is the same in both plans: {names}.")
    return "\n\n".join(blocks) + "\n"


def resource_changes(steps: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Return the engine's operations, the most severe first, then by type and name."""
    found = []
    for step in steps:
        type_, name = parts(step["urn"])
        words = STEP_WORDS if type_ == COMMAND else WORDS
        if step["op"] in words:
            found.append(Change(words[step["op"]], type_, name, tuple(_reasons(step))))
    order = [*WORDS.values(), *STEP_WORDS.values()]
    return sorted(found, key=lambda each: (order.index(each.what), each.type, each.name))


def later_changes(base: Plan, head: Plan, steps: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Return changes without effect on existing resources: inputs only for new ones, options, outputs of the stack."""
    now = {step["urn"]: set(differing(*_inputs(step))) | set(step.get("diffReasons") or ()) for step in steps}
    recreated = {step["urn"] for step in steps if step["op"] not in ("same", "update")}
    found = []
    for urn in sorted(set(base.resources) & set(head.resources) - recreated):
        before, after = base.resources[urn], head.resources[urn]
        part = "outputs" if parts(urn)[0] == STACK else "inputs"
        old, new = masked(before.get(part) or {}), masked(after.get(part) or {})
        lines = [
            _line(path, *values)
            for path, values in differing(old, new).items()
            if not {path, root(path)} & now.get(urn, set())
        ]
        options = {name: (before.get(name), after.get(name)) for name in OPTIONS}
        lines += [f"option {_line(name, *values)}" for name, values in options.items() if values[0] != values[1]]
        if lines:
            found.append(Change("", *parts(urn), tuple(lines)))
    return found


def flow_changes(base: Plan, head: Plan) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the flows that open and the flows that close."""
    before, after = ({tuple(flow) for flow in plan.flows} for plan in (base, head))
    # A port is a number, or a string with its protocol.
    return sorted(after - before, key=repr), sorted(before - after, key=repr)


def cost_changes(base: Plan, head: Plan) -> list[tuple[str, str, str]]:
    """Return monthly items with a different cost, or in only one version: item, before, after."""
    before, after = dict(base.cost or ()), dict(head.cost or ())
    items = [item for item in dict.fromkeys([*before, *after]) if before.get(item, "") != after.get(item, "")]
    return [(item, _amount(item, before), _amount(item, after)) for item in items]


def differing(old: Any, new: Any, path: str = "") -> dict[Path, tuple[Any, Any]]:
    """Return the paths at which two values differ, each with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [(key, f"{path}.{key}" if path else str(key)) for key in sorted({*old, *new})]
        return {
            at: values for key, below in keys for at, values in differing(old.get(key), new.get(key), below).items()
        }
    if isinstance(old, list) and isinstance(new, list):
        longest = max(len(old), len(new))
        pairs = [(list_[i] if i < len(list_) else None) for i in range(longest) for list_ in (old, new)]
        return {
            at: values
            for i in range(longest)
            for at, values in differing(pairs[2 * i], pairs[2 * i + 1], f"{path}[{i}]").items()
        }
    return {} if old == new else {path: (old, new)}


def masked(value: Any) -> Any:
    """Return the value with secrets hidden and without the plugins' internal properties."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET:
            return HIDDEN
        return {key: masked(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return HIDDEN if value == "[secret]" else value


def parts(urn: str) -> tuple[str, str]:
    """Return the type and name of a resource."""
    _, _, types, name = urn.split("::", 3)
    return types.rpartition("$")[2], name


def root(path: Path) -> str:
    """Return the first property of a path."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _inputs(step: Mapping[str, Any]) -> tuple[Any, Any]:
    old, new = ((step.get(state) or {}).get("inputs") or {} for state in ("oldState", "newState"))
    return masked(old), masked(new)


def _reasons(step: Mapping[str, Any]) -> Iterator[str]:
    if step["op"] not in ("update", "replace"):
        return
    old, new = _inputs(step)
    replacing = set(step.get("replaceReasons") or ())
    found = differing(old, new)
    lines = {path: _line(path, *values) for path, values in found.items()}
    for reason in {root(path) for path in step.get("diffReasons") or ()} - {root(path) for path in found}:
        if reason in old or reason in new:  # otherwise the plugin reports a computed property
            lines[reason] = _line(reason, old.get(reason), new.get(reason))
    if any(root(path) == "triggers" for path in lines):  # fingerprints, which mean nothing to a reader
        lines = {path: line for path, line in lines.items() if root(path) != "triggers"}
        lines["triggers"] = "what it depends on, or its machine"
    for path in sorted(lines):
        yield lines[path] + (" **(replaces)**" if {path, root(path)} & replacing else "")


def _line(path: Path, old: Any, new: Any) -> str:
    if HIDDEN in (old, new):
        return f"`{path}`: {HIDDEN} changed"
    if new == UNKNOWN:  # the old value is a placeholder
        return f"`{path}`: known after `up`"
    if isinstance(old, str) and isinstance(new, str) and UNKNOWN not in (old, new):
        if "\n" in old + new:
            return f"`{path}`: {_lines_changed(old, new)}"
        if max(len(old), len(new)) > LONGEST:
            old, new = _apart(old, new)
    return f"`{path}`: {shown(old)} → {shown(new)}"


def _lines_changed(old: str, new: str) -> str:
    lines = list(difflib.ndiff(old.splitlines(), new.splitlines()))
    added, removed = (sum(line.startswith(mark) for line in lines) for mark in ("+ ", "- "))
    return f"{added} lines added, {removed} removed"


def _apart(old: str, new: str) -> tuple[str, str]:
    """Shorten two long strings to their difference and the characters around it."""
    start = _common_length(old, new)
    end = _common_length(old[start:][::-1], new[start:][::-1])
    start, end = max(0, start - CONTEXT), max(0, end - CONTEXT)
    return tuple(("…" if start else "") + text[start : len(text) - end] + ("…" if end else "") for text in (old, new))  # type: ignore[return-value]


def _common_length(one: str, other: str) -> int:
    """Return the length of the common prefix of two strings."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def shown(value: Any) -> str:
    """Format a value for a table cell."""
    if value is None:
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > LONGEST or "\n" in text:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"a string of {len(text):,} characters ({digest})"
    return f"`{text}`" if "`" not in text and "|" not in text else f"<code>{_escaped(text)}</code>"


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;")):
        text = text.replace(character, entity)
    return text


def _warnings(base: Plan, changes: Sequence[Change], later: Sequence[Change]) -> list[str]:
    protected = {parts(urn) for urn, resource in base.resources.items() if resource.get("protect")}
    losses = (WORDS["replace"], WORDS["delete"])
    lines = []
    for change in (each for each in changes if each.type in CRITICAL and each.what in losses):
        failing = "; it is protected, so `pulumi up` fails" if (change.type, change.name) in protected else ""
        lines.append(f"- The {CRITICAL[change.type]} **{change.name}** is **{change.what.upper()}**{failing}.")
        lines += [f"    - {line}" for line in change.inputs]
    for change in later:
        if change.type in CRITICAL and any(line.startswith("option `protect`: `true`") for line in change.inputs):
            lines.append(f"- The {CRITICAL[change.type]} **{change.name}** is **NO LONGER PROTECTED** from deletion.")
    if lines:
        return ["\n".join(f"> {line}" for line in ("[!CAUTION]", *lines))]
    stopped = [
        f"**{change.name}**"
        for change in changes
        if CRITICAL.get(change.type) == "machine" and any(line.startswith("`instanceType`") for line in change.inputs)
    ]
    text = "No machine, data volume or address is replaced or deleted."
    return [f"{text} Stopped and started to change the instance type: {', '.join(stopped)}." if stopped else text]


def _resources(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return ["### Resources\n\nNone is created, updated, replaced or deleted."]
    words = dict.fromkeys(change.what for change in changes)
    counts = ", ".join(_count(word, sum(change.what == word for change in changes)) for word in words)
    rows = [
        f"| {change.what} | `{change.type}` | `{change.name}` | {'<br>'.join(change.inputs)} |" for change in changes
    ]
    return ["\n".join([f"### Resources: {counts}", "", "| what | type | name | changed |", "|---|---|---|---|", *rows])]


def _count(word: str, number: int) -> str:
    if word not in STEP_WORDS.values():
        return f"{number} {word}"
    verb, _, adverb = word.partition(" ")
    plural = {"runs": "run", "is": "are"}[verb]
    return f"{number} remote step {word}" if number == 1 else f"{number} remote steps {plural} {adverb}"


def _later(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return []
    rows = [f"| `{change.type}` | `{change.name}` | {'<br>'.join(change.inputs)} |" for change in changes]
    title = "### Changed without effect on existing resources\n\nNew and recreated resources get these values."
    return ["\n".join([title, "", "| type | name | changed |", "|---|---|---|", *rows])]


def _flows(opened: Sequence[tuple[Any, ...]], closed: Sequence[tuple[Any, ...]]) -> list[str]:
    if not opened and not closed:
        return []
    rows = [
        f"| {word} | {source} → {target} | {port} | {why} |"
        for word, flows in (("**opens**", opened), ("closes", closed))
        for source, target, port, why in flows
    ]
    return ["\n".join(["### Flows", "", "| | from → to | port | why |", "|---|---|---|---|", *rows])]


def _cost(base: Plan, head: Plan, changes: Sequence[tuple[str, str, str]]) -> list[str]:
    before, after = _together(base.cost), _together(head.cost)
    if not changes:
        return [f"### Cost: unchanged, {after} a month"]
    rows = [f"| {item} | {old} | {new} |" for item, old, new in changes]
    rows.append(f"| **total** | **{before}** | **{after}** |")
    title = f"### Cost a month: {before} → {after}"
    return ["\n".join([title, "", "| item | before | after |", "|---|---|---|", *rows])]


def _together(cost: Sequence[tuple[str, str | None]] | None) -> str:
    if cost is None:
        return "not known"
    amounts = [Decimal(amount) for _, amount in cost if amount is not None]
    if not amounts:
        return "not priced"
    return _dollars(sum(amounts, Decimal())) + ("" if len(amounts) == len(cost) else " plus items that are not priced")


def _amount(item: str, cost: Mapping[str, str | None]) -> str:
    if item not in cost:
        return ""
    amount = cost[item]
    return "not priced" if amount is None else _dollars(Decimal(amount))


def _dollars(amount: Decimal) -> str:
    return f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
