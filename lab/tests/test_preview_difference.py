"""The report for reviewers: losses first, each change once, no secrets, the same bytes for the same plans."""

import pytest

from lab.engine.properties import SECRET, SIGNATURE, UNKNOWN
from lab.preview.difference import Plan, differing, markdown, masked, shown

INSTANCE = "aws:ec2/instance:Instance"
VOLUME = "aws:ebs/volume:Volume"
COMMAND = "command:remote:Command"


def urn(type_: str, name: str) -> str:
    return f"urn:pulumi:dev::gitlab::gitlab:machine:VirtualMachine${type_}::{name}"


def plan(*resources, label="`main`", flows=(), cost=(("gp3 volumes", "10"),), ciphertexts=None) -> Plan:
    return Plan(label, {each["urn"]: each for each in resources}, flows, cost, ciphertexts or {})


def resource(type_, name, inputs=None, **options):
    return {"urn": urn(type_, name), "inputs": inputs or {}, **options}


def step(op, type_, name, old=None, new=None, **reasons):
    return {"op": op, "urn": urn(type_, name), "oldState": {"inputs": old}, "newState": {"inputs": new}, **reasons}


def diff(*steps, base=None, head=None, placeholders=None) -> str:
    return markdown("dev", base or plan(), head or plan(), steps, placeholders or {})


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_no_difference_is_one_line():
    assert diff(step("same", VOLUME, "server-data")) == "No difference: a stack `dev` of `main` does not change.\n"


def test_what_is_lost_comes_first_and_says_why():
    text = diff(
        step("update", VOLUME, "a-volume", {"size": 1}, {"size": 2}),
        step(
            "replace",
            INSTANCE,
            "server",
            {"subnetId": "a"},
            {"subnetId": "b"},
            diffReasons=["subnetId"],
            replaceReasons=["subnetId"],
        ),
        step("delete", VOLUME, "server-data", {"size": 100}),
    )
    assert text.splitlines()[2:6] == [
        "> [!CAUTION]",
        "> - The machine **server** is **REPLACED**.",
        ">     - `subnetId`: `a` → `b` **(replaces)**",
        "> - The data volume **server-data** is **DELETED**.",
    ]
    assert [row.split(" | ")[0] for row in rows(text)[1:]][:3] == ["| replaced", "| deleted", "| updated"]


def test_what_is_lost_and_protected_is_refused_by_the_engine():
    base = plan(resource(VOLUME, "server-data", protect=True))
    text = diff(step("replace", VOLUME, "server-data", {"type": "gp3"}, {"type": "io2"}), base=base)
    assert "**server-data** is **REPLACED**; it is protected, so `pulumi up` fails." in text


def test_the_loss_of_protection_is_as_loud():
    base = plan(resource(VOLUME, "server-data", protect=True))
    text = diff(base=base, head=plan(resource(VOLUME, "server-data", protect=False)))
    assert "> - The data volume **server-data** is **NO LONGER PROTECTED** from deletion." in text


def test_nothing_lost_is_said_as_well_and_which_machine_is_stopped():
    text = diff(step("update", INSTANCE, "runner", {"instanceType": "t3.large"}, {"instanceType": "t3.xlarge"}))
    assert "CAUTION" not in text
    quiet = "No machine, data volume or address is replaced or deleted."
    assert f"{quiet} Stopped and started to change the instance type: **runner**." in text.splitlines()


def test_a_changed_input_is_shown_with_both_values_and_a_secret_without():
    text = diff(
        step(
            "update",
            COMMAND,
            "server-configure-gitlab",
            {"create": "run 17.10.4", "stdin": "[secret]", "connection": {SIGNATURE: SECRET, "value": "key"}},
            {"create": "run 17.11.7", "stdin": "[secret]", "connection": {SIGNATURE: SECRET, "value": "other"}},
            diffReasons=["create", "stdin"],
        )
    )
    [row] = [row for row in rows(text) if "configure" in row]
    assert row.endswith("| `create`: `run 17.10.4` → `run 17.11.7`<br>`stdin`: (secret) changed |")
    assert "1 remote step runs again" in text


def test_fingerprints_say_only_that_what_they_stand_for_has_changed():
    text = diff(step("replace", COMMAND, "runner-register", {"triggers": ["a", "x"]}, {"triggers": ["a", "y"]}))
    assert "| runs again | `command:remote:Command` | `runner-register` | what it depends on, or its machine |" in text


def test_what_is_known_only_afterwards_is_said_to_be():
    text = diff(step("update", INSTANCE, "server", {"ami": "ami-1"}, {"ami": UNKNOWN}))
    assert "`ami`: known after `up`" in text


def test_what_only_a_new_resource_gets_is_told_apart():
    base = plan(resource(INSTANCE, "server", {"ami": "ami-1", "instanceType": "a"}))
    head = plan(resource(INSTANCE, "server", {"ami": "ami-2", "instanceType": "b"}))
    text = diff(step("update", INSTANCE, "server", {"instanceType": "a"}, {"instanceType": "b"}), base=base, head=head)
    _, later = text.split("### Changed without effect on existing resources")
    assert rows(later)[1] == "| `aws:ec2/instance:Instance` | `server` | `ami`: `ami-1` → `ami-2` |"
    assert "instanceType" not in later


def test_flows_that_open_and_close_are_a_table_of_their_own():
    before = plan(flows=[["runner", "internet", 80, "downloads"]])
    text = diff(base=before, head=plan(flows=[["runner", "internet", 8443, "artifacts"]]))
    assert "| **opens** | runner → internet | 8443 | artifacts |" in text
    assert "| closes | runner → internet | 80 | downloads |" in text


def test_the_month_is_shown_before_and_after():
    head = plan(cost=[["gp3 volumes", "12.5"], ["server", None]])
    text = diff(base=plan(cost=[["gp3 volumes", "10"]]), head=head)
    assert "### Cost a month: $10.00 → $12.50 plus items that are not priced" in text
    assert "| gp3 volumes | $10.00 | $12.50 |" in text
    assert "| server |  | not priced |" in text


def test_a_version_that_knew_no_cost_has_none_that_is_known():
    assert "### Cost a month: not known → $10.00" in diff(base=plan(cost=None))


def test_a_secret_that_was_encrypted_anew_is_named_and_so_are_placeholders():
    before, after = ({"gitlab:smtpPassword": {"secure": text}} for text in ("v1:a", "v1:b"))
    text = diff(
        base=plan(ciphertexts=before), head=plan(ciphertexts=after), placeholders={"gitlab:smtpPassword": "encrypted"}
    )
    assert "Re-encrypted in the stack file, and therefore possibly changed: `gitlab:smtpPassword`." in text
    assert "Secrets with a placeholder, which is the same in both plans: `gitlab:smtpPassword` (encrypted)." in text
    assert "v1:" not in text


def test_the_order_in_which_the_engine_tells_does_not_matter():
    steps = [step("create", VOLUME, name) for name in ("b", "a", "c")]
    assert diff(*steps) == diff(*reversed(steps))


def test_paths_name_what_differs_inside():
    old = {"a": [{"b": 1}, {"b": 2}], "c": "x"}
    assert differing(old, {"a": [{"b": 1}, {"b": 3}, {"b": 4}], "c": "x"}) == {
        "a[1].b": (2, 3),
        "a[2]": (None, {"b": 4}),
    }


def test_secrets_are_hidden_at_any_depth():
    value = {"a": [{SIGNATURE: SECRET, "ciphertext": "v1"}], "b": "[secret]", "__defaults": []}
    assert masked(value) == {"a": ["(secret)"], "b": "(secret)"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "`true`"),
        (100.0, "`100`"),
        ("a|b", "<code>a&#124;b</code>"),
        ("x" * 61, "a string of 61 characters (c508e75f)"),
    ],
)
def test_a_value_fits_into_a_cell(value, text):
    assert shown(value) == text


def test_long_texts_are_shown_around_what_differs():
    old = "sudo run-step " + "x" * 80 + " 100 docker /srv/registry"
    text = diff(step("update", COMMAND, "registry-mount-data", {"create": old}, {"create": old.replace("100", "250")}))
    assert "`…xxxxxxxxxxxxxxx 100 docker /srv/re…` → `…xxxxxxxxxxxxxxx 250 docker /srv/re…`" in text


def test_texts_of_several_lines_are_counted():
    text = diff(step("update", COMMAND, "x-y", {"stdin": "a\nb\nc\n"}, {"stdin": "a\nB\nc\nd\n"}))
    assert "`stdin`: 2 lines added, 1 removed" in text
