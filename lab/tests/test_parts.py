"""Real parts instead of stand-ins: what `LAB_PARTS` may contain, where each part is used, and how that is undone."""

import contextlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab import parts, report, versions, workspace
from lab.engine import build
from lab.vendors import helper_image, images, packages, registry, rpm
from lab.workspace import LabError

BUILD = rpm.build
RUNNER_SPEC = packages.PLAYED / "gitlab_runner" / "gitlab_runner.spec"
HELPER_IMAGES_SPEC = packages.SOURCE / "gitlab-runner-helper-images" / "gitlab-runner-helper-images.spec"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder of parts, in `LAB_PARTS`."""
    found = tmp_path / "parts"
    found.mkdir()
    monkeypatch.setenv(parts.VARIABLE, str(found))
    monkeypatch.setattr(parts, "IN_PLACE", tmp_path / "in-place")
    monkeypatch.setattr(workspace, "say", lambda text: None)
    return found


def add(folder, name, says="real"):
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)
    return program


def gitlab_package(folder, version):
    """An empty package with the name of GitLab's own."""
    spec = folder.parent / "gitlab-ce.spec"
    spec.write_text(
        f"Name: gitlab-ce\nVersion: {version}\nRelease: ce.0.el8\nSummary: GitLab\nLicense: MIT\n"
        "%description\nGitLab\n%files\n"
    )
    (package,) = BUILD(spec, folder, {"_arch": "x86_64"})
    return package


def test_without_the_variable_everything_is_played(monkeypatch):
    monkeypatch.delenv(parts.VARIABLE)
    assert [parts.find(name) for name in parts.KNOWN] == [None] * len(parts.KNOWN)
    assert parts.gitlab_packages() == {}


def test_what_the_folder_has_is_real_and_the_rest_is_played(folder):
    runner = add(folder, "gitlab-runner")
    assert parts.find(parts.RUNNER) == runner
    assert parts.find(parts.REGISTRY) is None


def test_a_folder_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv(parts.VARIABLE, "/no/such/folder")
    with pytest.raises(LabError, match=r"LAB_PARTS=/no/such/folder is not a folder: set it to a folder with any of"):
        parts.find(parts.RUNNER)


def test_a_file_that_is_no_part_is_named_with_the_names_there_are(folder):
    add(folder, "gitlab-runner-linux-amd64")
    with pytest.raises(
        LabError, match=r"gitlab-runner-linux-amd64: not the name of a part; .* gitlab-runner, registry, gitlab-ce-V"
    ):
        parts.find(parts.REGISTRY)


@pytest.mark.parametrize(
    "name",
    ["gitlab-ce-17.10.4-ce.0.el9.x86_64.rpm", "gitlab-ee-17.10.4-ee.0.el8.x86_64.rpm", "gitlab-ce", "gitlab-ce.rpm"],
)
def test_another_package_than_gitlab_ces_for_red_hat_8_is_no_part(folder, name):
    add(folder, name)
    with pytest.raises(LabError, match=f"{name}: not the name of a part"):
        parts.gitlab_packages()


def test_a_part_that_cannot_be_executed_is_named(folder):
    add(folder, "registry").chmod(0o644)
    with pytest.raises(LabError, match=r"registry: must be GitLab's container registry 4\.15\.2 as an executable"):
        parts.find(parts.COMMAND_PLUGIN)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The path of the command plugin; nothing is compiled."""
    for name in ("CACHE", "BIN", "PULUMI_HOME"):
        monkeypatch.setattr(build, name, tmp_path / name.lower())
    monkeypatch.setattr(build, "_go_build", lambda program, *rest: program)
    monkeypatch.setattr(build, "_why_not_served", lambda folder, module: "404 Not Found")
    monkeypatch.delenv("LAB_ENGINE", raising=False)
    return build.PULUMI_HOME / "plugins" / f"resource-command-v{versions.PULUMI_COMMAND}" / "pulumi-resource-command"


def says(program):
    return subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout


def test_the_real_command_plugin_takes_the_place_of_the_played_one_and_gives_it_back(folder, plugin):
    build.ensure()
    assert "The lab's stand-in" in says(plugin)
    played = plugin.read_text()
    part = add(folder, "pulumi-resource-command")
    build.ensure()
    assert says(plugin) == "real\n"
    assert parts.in_place() == {parts.COMMAND_PLUGIN}
    part.unlink()
    build.ensure()
    assert plugin.read_text() == played
    assert parts.in_place() == set()


def test_a_launcher_is_put_back_over_a_program_that_is_no_text(folder, plugin):
    build.ensure()
    played = plugin.read_text()
    part = add(folder, "pulumi-resource-command")
    part.write_bytes(b"\x7fELF\xff\xfe")
    build.ensure()
    part.unlink()
    build.ensure()
    assert plugin.read_text() == played


def test_another_build_of_the_command_plugin_is_taken_at_the_next_command(folder, plugin):
    add(folder, "pulumi-resource-command", "one")
    build.ensure()
    add(folder, "pulumi-resource-command", "another")
    build.ensure()
    assert says(plugin) == "another\n"


def test_the_launcher_never_writes_into_the_part_itself(folder, plugin, tmp_path):
    part = add(folder, "pulumi-resource-command")
    build.ensure()
    kept = part.rename(tmp_path / "kept")
    build.ensure()
    assert says(kept) == "real\n"


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The macros of each package that would be built; nothing is signed."""
    made: list[tuple[str, dict[str, str]]] = []

    def make(spec, output, macros):
        output.mkdir(parents=True, exist_ok=True)
        made.append((spec.stem, macros))
        return []

    monkeypatch.setattr(packages, "FOLDER", tmp_path / "vendors")
    monkeypatch.setattr(packages, "WEB_ROOT", tmp_path / "vendors" / "www")
    monkeypatch.setattr(packages, "ENGINE", folder := tmp_path / "engine")
    folder.mkdir()
    monkeypatch.setattr(packages, "_ensure_engine_packages", lambda: None)
    monkeypatch.setattr(packages, "_key_ring", contextlib.nullcontext)
    monkeypatch.setattr(packages, "_ensure_keys", lambda: Path(packages.__file__))
    for name in ("_sign", "_index", "_publish"):
        monkeypatch.setattr(packages, name, lambda *given: None)
    monkeypatch.setattr(rpm, "build", make)
    monkeypatch.setattr(helper_image, "pack", lambda runner, tini, archive: None)
    return made


def test_the_packages_are_built_again_when_the_runner_comes_changes_or_goes(folder, built):
    def real_runner():
        built.clear()
        packages.ensure()
        return dict(built)["gitlab_runner"].get("real_runner") if built else "as before"

    assert real_runner() is None
    assert real_runner() == "as before"
    part = add(folder, "gitlab-runner")
    assert real_runner() == str(part)
    assert parts.in_place() == {parts.RUNNER}
    assert real_runner() == "as before"
    add(folder, "gitlab-runner", "another")
    assert real_runner() == str(part)
    part.unlink()
    assert real_runner() is None
    assert parts.in_place() == set()


@pytest.mark.needs("rpmbuild")
def test_gitlabs_own_packages_are_signed_and_offered_in_place_of_the_doubles(folder, built, tmp_path, monkeypatch):
    monkeypatch.setattr(rpm, "CACHE", tmp_path)
    signed: dict[str, str] = {}
    monkeypatch.setattr(packages, "_sign", lambda key, files: signed.update({file.name: key for file in files}))
    offered = packages.WEB_ROOT / packages.GITLAB

    def doubles():
        built.clear()
        packages.ensure()
        return [macros["gitlab_version"] for spec, macros in built if spec == "gitlab_ce"]

    assert doubles() == ["17.10.4", "17.11.7"]
    package = gitlab_package(folder, "17.10.4")
    later = gitlab_package(folder, "18.2.8")
    assert doubles() == []
    assert signed == {package.name: packages.GITLAB_OLD_KEY, later.name: packages.GITLAB_KEY}
    assert (offered / package.name).read_bytes() == package.read_bytes()
    assert parts.in_place() == {parts.GITLAB}
    later.unlink()
    packages.ensure()
    assert [file.name for file in offered.iterdir()] == [package.name]
    package.unlink()
    assert doubles() == ["17.10.4", "17.11.7"]
    assert parts.in_place() == set()


@pytest.mark.needs("rpmbuild")
def test_a_package_that_is_not_what_its_name_says_is_named(folder, built, tmp_path, monkeypatch):
    monkeypatch.setattr(rpm, "CACHE", tmp_path)
    package = gitlab_package(folder, "17.10.4")
    package.rename(folder / "gitlab-ce-18.2.8-ce.0.el8.x86_64.rpm")
    with pytest.raises(LabError, match=r"gitlab-ce-18\.2\.8-.*: the package in it is gitlab-ce-17\.10\.4-ce\.0\.el8"):
        packages.ensure()


@pytest.mark.needs("rpmbuild")
@pytest.mark.parametrize("real", [True, False])
def test_the_runners_package_holds_the_real_program_alone_or_what_plays_it(real, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rpm, "CACHE", tmp_path)
    macros = {"real_runner": str(add(folder, "gitlab-runner"))} if real else {}
    (package,) = rpm.build(RUNNER_SPEC, tmp_path / "out", macros)
    assert package.name == "gitlab-runner-17.10.1-1.x86_64.rpm"
    held = subprocess.run(["rpm", "-qpl", package], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "/usr/bin/gitlab-runner" in held
    assert (len(held) == 1) is real
    scripts = subprocess.run(["rpm", "-qp", "--scripts", package], capture_output=True, text=True, check=True).stdout
    assert "gitlab-runner install --user=gitlab-runner" in scripts


@pytest.mark.needs("rpmbuild")
def test_a_runner_finds_its_helper_image_where_it_looks_first(tmp_path, monkeypatch):
    monkeypatch.setattr(rpm, "CACHE", tmp_path)
    (tmp_path / "image").touch()
    (package,) = rpm.build(HELPER_IMAGES_SPEC, tmp_path / "out", {"helper_image": str(tmp_path / "image")})
    held = subprocess.run(["rpm", "-qpl", package], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.tar.xz" in held


@pytest.fixture(scope="module")
def helper_root(tmp_path_factory):
    """The content of the helper image."""
    folder = tmp_path_factory.mktemp("helper-image")
    root, tini = folder / "root", folder / "tini"
    tini.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    tini.chmod(0o755)
    helper_image.lay_out(root, add(folder, "gitlab-runner"), tini)
    (root / "dev").mkdir()
    (root / "dev" / "null").touch()  # replaces the device
    return root


needs_root = pytest.mark.needs("busybox", "git", "xz", root=True)


def test_the_archive_of_the_helper_image_is_roots_whoever_packs_it(tmp_path, monkeypatch):
    def lay_out(root, runner, tini):
        root.mkdir()
        os.chown(root, 1000 if os.geteuid() == 0 else -1, -1)

    monkeypatch.setattr(helper_image, "CACHE", tmp_path)
    monkeypatch.setattr(helper_image, "lay_out", lay_out)
    helper_image.pack(None, tmp_path / "tini", tmp_path / "image.tar.xz")
    with tarfile.open(tmp_path / "image.tar.xz") as packed:
        assert {(entry.uid, entry.gid, entry.uname) for entry in packed} == {(0, 0, "root")}


@needs_root
def test_the_helper_image_runs_the_runner_as_the_helper_and_git_over_http(helper_root):
    def inside(*command):
        done = subprocess.run(["chroot", helper_root, *command], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert inside("gitlab-runner-helper") == "real\n"
    assert inside("git", "init", "--quiet", "/builds") == ""
    assert "Failed to connect to 127.0.0.1 port 1" in inside("git", "ls-remote", "http://127.0.0.1:1/")


@needs_root
def test_the_helper_image_runs_the_scripts_that_a_runner_writes_for_bash(helper_root):
    script = "set -eo pipefail; set +o noclobber; : | eval $'touch /tmp/cloned\\nstat -c %a /tmp/cloned'"
    done = subprocess.run(
        ["chroot", helper_root, "/usr/bin/dumb-init", "/entrypoint", "gitlab-runner-build"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("666\n", "")


@pytest.fixture
def servers(tmp_path, monkeypatch):
    """The servers that were put into an image; no image is built."""
    made: list[str] = []

    def fill(storage, contexts, offered):
        storage.mkdir()
        made.append(says(contexts / offered[0].name / "root/bin/registry"))

    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("docker-registry", "busybox", "curl"):
        add(tools, name, "ancestor")
    monkeypatch.setattr(registry, "STORAGE", tmp_path / "vendors" / "registry")
    monkeypatch.setattr(registry, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(registry, "find_program", lambda name: tools / name)
    monkeypatch.setattr(registry, "_fill", fill)
    monkeypatch.setattr(registry, "stop", lambda: None)
    return made


def test_the_registry_image_is_built_again_when_the_real_server_comes_changes_or_goes(folder, servers):
    def server():
        servers.clear()
        registry.ensure()
        return servers[0] if servers else "as before"

    assert server() == "ancestor\n"
    part = add(folder, "registry")
    assert server() == "real\n"
    assert parts.in_place() == {parts.REGISTRY}
    assert server() == "as before"
    add(folder, "registry", "another")
    assert server() == "another\n"
    part.unlink()
    assert server() == "ancestor\n"
    assert parts.in_place() == set()


def test_a_server_that_is_linked_statically_brings_no_libraries(folder, tmp_path):
    program = add(folder, "registry")  # ldd reports no libraries of a script either
    root = tmp_path / "root"
    images.lay_out(root, {"bin/registry": program})
    assert (root / "bin" / "registry").stat().st_mode & 0o777 == 0o755
    assert [folder.name for folder in root.iterdir()] == ["bin"]


def test_a_server_that_is_linked_dynamically_brings_its_libraries(tmp_path):
    shell = Path("/bin/sh").resolve()
    images.lay_out(tmp_path / "root", {"bin/registry": shell})
    assert list((tmp_path / "root").rglob("libc.so*"))


def test_the_status_tells_real_parts_from_played_ones(monkeypatch):
    def sentences():
        real, played = report.real_and_played().split("Played\n")
        return real, played

    real, played = sentences()
    assert "Debian's" in real
    assert "gitlab-runner" not in real
    assert "AWS and command plugins" in played
    assert "gitlab-runner" in played
    for name in parts.KNOWN:
        parts.note(name, real=True)
    monkeypatch.delenv(parts.VARIABLE)
    real, played = sentences()
    for part in parts.KNOWN.values():
        assert part in real
    assert "Debian's" not in real
    assert "command" not in played
    assert "gitlab-runner" not in played
