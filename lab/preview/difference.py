"""What a change of the program changes, as Markdown: pure functions of two plans."""

import difflib
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from lab.engine.properties import SECRET, SIGNATURE, UNKNOWN

LOUD = {
    "aws:ec2/instance:Instance": "machine",
    "aws:ebs/volume:Volume": "data volume",
    "aws:ec2/eip:Eip": "address",
}
"""What a reader must not overlook the loss of."""

STACK = "pulumi:pulumi:Stack"
COMMAND = "command:remote:Command"

WORDS = {"replace": "replaced", "delete": "deleted", "import": "taken over", "create": "created", "update": "updated"}
STEP_WORDS = {"create": "runs first", "update": "runs again", "replace": "runs again", "delete": "is forgotten"}
"""What happens to a resource, and to a remote step: that one is replaced means that it runs once more."""

OPTIONS = ("protect", "retainOnDelete", "ignoreChanges", "deletedWith", "customTimeouts", "additionalSecretOutputs")
"""How the engine is told to treat a resource: a change of it changes nothing in AWS yet."""

HIDDEN = "(secret)"
LONGEST = 60  # characters of a value that is shown as it is
CONTEXT = 16  # characters that are shown before and after a difference in a longer one

Path = str


@dataclass(frozen=True)
class Plan:
    """One version of the program: the state of a stack made by it, by URN, and what its own code says of itself."""

    label: str
    resources: Mapping[str, Mapping[str, Any]]
    flows: Sequence[Sequence[Any]]
    cost: Sequence[tuple[str, str | None]] | None
    ciphertexts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What happens to one resource: `what` it is for a reader, with what has changed about it, one line each."""

    what: str
    type: str
    name: str
    inputs: tuple[str, ...]


def markdown(
    stack: str, base: Plan, head: Plan, steps: Sequence[Mapping[str, Any]], placeholders: Mapping[str, str]
) -> str:
    """The difference, for a stack that was made by `base`; `steps` are those of `head`'s preview on it."""
    changes, later = resource_changes(steps), later_changes(base, head, steps)
    opened, closed = flow_changes(base, head)
    costs = cost_changes(base, head)
    encrypted = sorted(
        key for key in {*base.ciphertexts, *head.ciphertexts} if base.ciphertexts.get(key) != head.ciphertexts.get(key)
    )
    if not (changes or later or opened or closed or costs or encrypted):
        return f"No difference: a stack `{stack}` of {base.label} stays as it is.\n"
    blocks = [f"## What this changes on a stack `{stack}` of {base.label}", *_loud(base, changes, later)]
    blocks += _resources(changes)
    blocks += _later(later)
    blocks += _flows(opened, closed)
    blocks += _cost(base, head, costs)
    if encrypted:
        names = ", ".join(f"`{key}`" for key in encrypted)
        blocks.append(f"Encrypted anew in the stack file, and so perhaps changed: {names}.")
    if placeholders:
        names = ", ".join(f"`{key}` ({why})" for key, why in sorted(placeholders.items()))
        blocks.append(f"Placeholders stand for secrets, the same in both plans: {names}.")
    return "\n\n".join(blocks) + "\n"


def resource_changes(steps: Sequence[Mapping[str, Any]]) -> list[Change]:
    """What the engine would do, the loudest first, then by type and name."""
    found = []
    for step in steps:
        type_, name = parts(step["urn"])
        words = STEP_WORDS if type_ == COMMAND else WORDS
        if step["op"] in words:
            found.append(Change(words[step["op"]], type_, name, tuple(_reasons(step))))
    order = [*WORDS.values(), *STEP_WORDS.values()]
    return sorted(found, key=lambda each: (order.index(each.what), each.type, each.name))


def later_changes(base: Plan, head: Plan, steps: Sequence[Mapping[str, Any]]) -> list[Change]:
    """What leaves resources that are there alone: inputs that only a new one gets, options, outputs of the stack."""
    now = {step["urn"]: set(differing(*_inputs(step))) | set(step.get("diffReasons") or ()) for step in steps}
    anew = {step["urn"] for step in steps if step["op"] not in ("same", "update")}
    found = []
    for urn in sorted(set(base.resources) & set(head.resources) - anew):
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
    """Flows that open and flows that close."""
    before, after = ({tuple(flow) for flow in plan.flows} for plan in (base, head))
    # A port is a number, or with its protocol a text.
    return sorted(after - before, key=repr), sorted(before - after, key=repr)


def cost_changes(base: Plan, head: Plan) -> list[tuple[str, str, str]]:
    """Items of the month whose cost is another one, or which only one version has: item, before, after."""
    before, after = dict(base.cost or ()), dict(head.cost or ())
    items = [item for item in dict.fromkeys([*before, *after]) if before.get(item, "") != after.get(item, "")]
    return [(item, _amount(item, before), _amount(item, after)) for item in items]


def differing(old: Any, new: Any, path: str = "") -> dict[Path, tuple[Any, Any]]:
    """The paths at which two values differ, with both."""
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
    """The value with every secret hidden, and what the plugins note for themselves left out."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET:
            return HIDDEN
        return {key: masked(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return HIDDEN if value == "[secret]" else value


def parts(urn: str) -> tuple[str, str]:
    """Type and name of a resource."""
    _, _, types, name = urn.split("::", 3)
    return types.rpartition("$")[2], name


def root(path: Path) -> str:
    """The property a path begins with."""
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
        if reason in old or reason in new:  # else the plugin names what will come of it
            lines[reason] = _line(reason, old.get(reason), new.get(reason))
    if any(root(path) == "triggers" for path in lines):  # fingerprints, of which a reader learns nothing
        lines = {path: line for path, line in lines.items() if root(path) != "triggers"}
        lines["triggers"] = "what it proves, or its machine"
    for path in sorted(lines):
        yield lines[path] + (" **(replaces)**" if {path, root(path)} & replacing else "")


def _line(path: Path, old: Any, new: Any) -> str:
    if HIDDEN in (old, new):
        return f"`{path}`: {HIDDEN} changed"
    if new == UNKNOWN:  # what it was is of a made-up resource
        return f"`{path}`: known afterwards"
    if isinstance(old, str) and isinstance(new, str) and UNKNOWN not in (old, new):
        if "\n" in old + new:
            return f"`{path}`: {_lines_changed(old, new)}"
        if max(len(old), len(new)) > LONGEST:
            old, new = _apart(old, new)
    return f"`{path}`: {shown(old)} → {shown(new)}"


def _lines_changed(old: str, new: str) -> str:
    lines = list(difflib.ndiff(old.splitlines(), new.splitlines()))
    added, removed = (sum(line.startswith(mark) for line in lines) for mark in ("+ ", "- "))
    return f"{added} of its lines added, {removed} removed"


def _apart(old: str, new: str) -> tuple[str, str]:
    """Two long texts from shortly before to shortly after where they differ."""
    start = _common_length(old, new)
    end = _common_length(old[start:][::-1], new[start:][::-1])
    start, end = max(0, start - CONTEXT), max(0, end - CONTEXT)
    return tuple(("…" if start else "") + text[start : len(text) - end] + ("…" if end else "") for text in (old, new))  # type: ignore[return-value]


def _common_length(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def shown(value: Any) -> str:
    """A value in a cell of a table."""
    if value is None:
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > LONGEST or "\n" in text:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"a text of {len(text):,} characters ({digest})"
    return f"`{text}`" if "`" not in text and "|" not in text else f"<code>{_escaped(text)}</code>"


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;")):
        text = text.replace(character, entity)
    return text


def _loud(base: Plan, changes: Sequence[Change], later: Sequence[Change]) -> list[str]:
    protected = {parts(urn) for urn, resource in base.resources.items() if resource.get("protect")}
    lost = [change for change in changes if change.type in LOUD and change.what in (WORDS["replace"], WORDS["delete"])]
    lines = []
    for change in lost:
        refused = "; it is protected, so `pulumi up` refuses" if (change.type, change.name) in protected else ""
        lines.append(f"- The {LOUD[change.type]} **{change.name}** is **{change.what.upper()}**{refused}.")
        lines += [f"    - {line}" for line in change.inputs]
    for change in later:
        if change.type in LOUD and any(line.startswith("option `protect`: `true`") for line in change.inputs):
            lines.append(f"- The {LOUD[change.type]} **{change.name}** is **NO LONGER PROTECTED** from deletion.")
    if lines:
        return ["\n".join(f"> {line}" for line in ("[!CAUTION]", *lines))]
    stopped = [
        f"**{change.name}**"
        for change in changes
        if LOUD.get(change.type) == "machine" and any(line.startswith("`instanceType`") for line in change.inputs)
    ]
    text = "No machine, data volume or address is replaced or deleted."
    return [f"{text} Stopped and started, for another type: {', '.join(stopped)}." if stopped else text]


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
    title = "### Changed, but not for what is there\n\nA new stack, or a resource made anew, would get it."
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
