"""Imports respect the layers: settings, configuration, components; the product never imports the lab or the tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = [
    ROOT / "__main__.py",
    ROOT / "settings.py",
    ROOT / "doctor.py",
    ROOT / "doctor_ssh.py",
    ROOT / "root_password.py",
    *(ROOT / "validation").glob("*.py"),
    *(ROOT / "components").glob("*.py"),
    *(ROOT / "configuration").glob("*.py"),
    *(ROOT / "recovery").glob("*.py"),
]
LAB = [path for path in sorted((ROOT / "lab").rglob("*.py")) if not path.is_relative_to(ROOT / "lab" / "tests")]


def modules(path: Path) -> set[str]:
    """The modules that a file imports, by a statement or by a name in a string, which may be passed to import_module.

    For `from lab import shell`, both lab and lab.shell, because either may be the module.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+(\.\w+)*", node.value)
        ):
            names.add(node.value)
    return names


def imported(path: Path) -> set[str]:
    """The packages that a file imports with a statement."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize(
    "path",
    [ROOT / "settings.py", *(ROOT / "validation").glob("*.py"), *(ROOT / "configuration").glob("*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_settings_and_configuration_know_no_pulumi_and_no_components(path):
    assert not imported(path) & {"pulumi", "pulumi_aws", "pulumi_command", "components"}


def test_settings_reach_for_no_other_layer():
    assert not imported(ROOT / "settings.py") & {"configuration", "components"}


def test_validation_knows_neither_the_settings_nor_a_layer_above_them():
    for path in (ROOT / "validation").glob("*.py"):
        assert not imported(path) & {"settings", "configuration", "components"}, path.name


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_product_knows_nothing_of_the_lab_the_tests_or_the_tools(path):
    assert not imported(path) & {"lab", "tests", "tools", "moto"}


@pytest.mark.parametrize("path", sorted((ROOT / "recovery").glob("*.py")), ids=lambda path: path.name)
def test_the_recovery_commands_need_no_program_and_are_no_part_of_it(path):
    assert not imported(path) & {"pulumi", "pulumi_aws", "pulumi_command", "components"}


def test_only_the_recovery_commands_call_aws_directly():
    callers = {path.parent.name for path in PRODUCT if imported(path) & {"boto3", "botocore"}}
    assert callers == {"recovery"}


@pytest.mark.parametrize("path", sorted((ROOT / "components").glob("*.py")), ids=lambda path: path.name)
def test_components_hold_no_shell_text(path):
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [
        text for text in texts if any(word in text for word in ("sudo ", "bash", "systemctl", "set -e", "| ", "&& "))
    ]


def test_only_the_remote_host_makes_remote_commands():
    users = [path.name for path in PRODUCT if "pulumi_command" in imported(path)]
    assert users == ["remote_host.py"]


def test_components_read_no_configuration_of_their_own():
    components = ROOT / "components"
    for path in set(components.glob("*.py")) - {components / "stack_config.py"}:
        assert not re.search("pulumi.Config|StackConfig", path.read_text()), path.name


REPORTERS = {ROOT / "components" / "certificate.py"}
"""Import asyncio, to log each minute that the engine waits for a resource. Nothing waits for such a report."""


def test_components_do_not_sleep():
    commands = {ROOT / name for name in ("doctor.py", "doctor_ssh.py", "root_password.py")}
    for path in set(PRODUCT) - commands - set((ROOT / "recovery").glob("*.py")):
        assert not imported(path) & {"time", "asyncio"} - ({"asyncio"} if path in REPORTERS else set()), path.name
        assert ".sleep(" not in path.read_text(), path.name


def test_who_may_import_asyncio_does():
    assert all("asyncio" in imported(path) for path in REPORTERS)


@pytest.mark.parametrize("path", LAB, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_lab_knows_nothing_of_the_tests(path):
    known = {name for name in modules(path) if name.split(".")[0] == "tests" or name.startswith("lab.tests")}
    assert not known


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.name)
def test_the_tools_know_no_test_and_of_the_lab_only_where_it_keeps_things(path):
    known = {name for name in modules(path) if name.split(".")[0] in ("lab", "tests")}
    assert {name for name in known if not name.startswith(("lab.workspace", "lab.parts"))} <= {"lab"}


LAB_FLOORS = (
    {"versions", "workspace"},
    {"authority", "host", "parts", "shell"},
    {"containers", "engine", "outside"},
    {"cloud"},
    {"vendors"},
    {"image"},
    {"stack"},
    {"preview", "report"},
    {"__main__"},
)
"""The layers of the lab, lowest first: a part imports only itself and parts of lower layers."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(LAB_FLOORS) for room in rooms}


def room(path: Path) -> str:
    """The lab's module or package that contains a file."""
    return path.relative_to(ROOT / "lab").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path",
    [path for path in LAB if room(path) not in ("__init__", "played")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_room_of_the_lab_knows_only_rooms_of_the_floors_below_it(path):
    rooms = {name.split(".")[1] for name in modules(path) if name.startswith("lab.")} & set(FLOOR_OF)
    assert room(path) in FLOOR_OF
    assert not {other for other in rooms - {room(path)} if FLOOR_OF[other] >= FLOOR_OF[room(path)]}
