"""registry-tree on stores of real registry servers."""

import argparse
import ast
import contextlib
import errno
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from programs.registry_tree import cli, du, hashing, ls, reclaim, verify
from programs.registry_tree.manifest import IMAGE, OCI_IMAGE, ManifestError, parse_manifest
from programs.registry_tree.store import Store
from programs.registry_tree.text import Progress
from tests.effort import EFFORT
from tests.oldest_python import oldest_python
from tools.registry_server import OCI_INDEX, Registry, digest_of, find, install_registry_tree, some_bytes

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "programs/registry_tree").glob("*.py"))
FOLDER = tempfile.TemporaryDirectory()
PROGRAM = install_registry_tree(Path(FOLDER.name))
COMMANDS = (
    "ls",
    "show multi:latest",
    "history often:nightly",
    "du",
    "du --by tag",
    "du --by layer",
    "verify",
    "reclaim",
)
"""The commands; `fill` pushes the images in them."""


@pytest.fixture(autouse=True, scope="module")
def one_processor() -> Iterator[None]:
    """`verify` starts no processes unless a test says how many: each would be a copy of pytest's."""
    with unittest.mock.patch.object(os, "cpu_count", return_value=1):
        yield


def run(command: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run registry-tree in this process, because there are hundreds of cases."""
    errors = io.StringIO()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        status = cli.main([*command.split(), "--root", str(root)])
        output.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.getvalue())


def installed(command: str, root: Path, *, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run registry-tree as on the machines."""
    return subprocess.run(
        [python, PROGRAM, *command.split(), "--root", root],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )


def asked(command: str, root: Path) -> dict[str, Any]:
    """The JSON output of a command for an intact store."""
    done = run(f"{command} --json", root)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def verified(root: Path, jobs: int = 1) -> dict[str, Any]:
    """The result of `verify`, run in this process."""
    options = argparse.Namespace(root=str(root), images=[], jobs=jobs)
    store = Store(options.root, Progress(None))
    data = verify.gather(store, options)
    return dict(data, damage={(problem.kind, problem.path) for problem in store.problems})


def blob(digest: str) -> str:
    hexadecimal = digest.removeprefix("sha256:")
    return f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"


def link(repository: str, folder: str, digest: str) -> str:
    return f"repositories/{repository}/{folder}/{digest.replace(':', '/')}/link"


def bytes_of(name: str) -> str:
    """Digest of one of the layers that `fill` pushes."""
    return digest_of(some_bytes(name))


# Output ---------------------------------------------------------------------------------------------------------------


def test_the_tree_names_every_repository_and_tag_with_its_digest_and_the_open_upload(filled):
    repositories = {each["name"]: each for each in asked("ls", filled.registry.root)["repositories"]}
    tags = {f"{name}:{tag['tag']}": tag for name, each in repositories.items() for tag in each["tags"]}
    assert {name: tag["digest"] for name, tag in tags.items()}.items() >= {
        "group/app:1.0": filled.made["app"],
        "group/app:latest": filled.made["app"],
        "group/app/nested/deep:latest": filled.made["shared"],
        "another:v1": filled.made["elsewhere"],
        "multi:latest": filled.made["index"],
        "artifacts/reports:first": filled.made["artifact"],
        "often:nightly": filled.made["round 3"],
    }.items()
    assert tags["multi:latest"]["platforms"] == ["linux/amd64", "linux/arm64", "attestation"]
    assert tags["artifacts/reports:first"]["artifactType"] == "application/vnd.example.report"
    assert "old" not in [tag["tag"] for tag in repositories["group/gone"]["tags"]]
    assert [upload["bytes"] for upload in repositories["group/app"]["uploads"]] == [3000]


def test_a_tag_is_followed_down_to_its_layers_and_says_who_shares_them(filled):
    data = asked("show group/app:1.0", filled.registry.root)
    assert [row["role"] for row in data["contents"]] == ["manifest", "config", "layer", "layer"]
    manifest, _, base, own = data["contents"]
    assert data["link"] == "repositories/group/app/_manifests/tags/1.0/current/link"
    assert (filled.registry.store / data["link"]).read_text() == manifest["digest"] == filled.made["app"]
    assert (filled.registry.store / base["path"]).read_bytes() == some_bytes("base", 20_000)
    assert {"another:v1", "group/app:latest", "group/app/nested/deep:latest", "multi:latest"} <= set(base["sharedWith"])
    assert own["sharedWith"] == ["group/app:latest"]


def test_every_platform_of_an_index_is_shown_with_its_layers(filled):
    rows = asked("show multi:latest", filled.registry.root)["contents"]
    assert [row["platform"] for row in rows if row["role"] == "manifest"] == [
        "",
        "linux/amd64",
        "linux/arm64",
        "attestation",
    ]
    assert {bytes_of("amd64"), bytes_of("arm64"), bytes_of("attested")} <= {row["digest"] for row in rows}


def test_the_history_of_a_tag_is_every_digest_it_had_and_the_current_one_last(filled):
    digests = asked("history often:nightly", filled.registry.root)["digests"]
    assert {row["digest"] for row in digests} == {filled.made[f"round {number}"] for number in range(4)}
    assert [row["state"] for row in digests] == ["stored", "stored", "stored", "current"]
    assert digests[-1]["digest"] == filled.made["round 3"]


def test_bytes_are_those_of_the_files_and_what_sharing_saves_is_the_difference(filled):
    registry = filled.registry
    data = asked("du", registry.root)
    files = [path.stat().st_size for path in registry.store.glob("blobs/*/*/*/data")]
    assert (data["storedBytes"], data["blobs"]) == (sum(files), len(files))
    assert data["uploadBytes"] == 3000
    assert data["neededBytes"] < data["referencedBytes"]
    rows = {row["name"]: row for row in data["rows"]}
    app = asked("show group/app:1.0", registry.root)
    assert rows["group/app"]["bytes"] == app["bytes"]
    assert rows["group/app"]["onlyHereBytes"] == app["bytes"] - 20_000
    assert data["reclaimableBytes"] == asked("reclaim", registry.root)["bytes"]
    if breaks_indexes(registry):
        assert data["reclaimableWithUntaggedBytes"] is None
        assert "unknown including untagged manifests; see registry-tree reclaim" in run("du", registry.root).stdout
    else:
        assert data["reclaimableWithUntaggedBytes"] == asked("reclaim --untagged", registry.root)["bytes"]


def test_what_only_one_tag_needs_is_what_would_go_with_it(filled):
    rows = {row["name"]: row for row in asked("du --by tag", filled.registry.root)["rows"]}
    assert rows["group/app:1.0"]["onlyHereBytes"] == rows["group/app:latest"]["onlyHereBytes"] == 0
    assert rows["another:v1"]["onlyHereBytes"] == rows["another:v1"]["bytes"] - 20_000
    layers = {row["name"]: row for row in asked("du --by layer", filled.registry.root)["rows"]}
    assert layers[digest_of(some_bytes("base", 20_000))]["holders"] == 9


@pytest.mark.parametrize("command", COMMANDS)
def test_people_get_exact_bytes_and_readable_units(filled, command):
    done = run(command, filled.registry.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kB (" in done.stdout
    assert "bytes)" in done.stdout


@pytest.mark.parametrize("command", ["ls", "verify --json", "reclaim --untagged", "show no:tag"])
def test_the_program_on_the_machine_says_the_same_as_in_this_process(filled, command):
    here, there = run(command, filled.registry.root), installed(command, filled.registry.root)
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)


@pytest.mark.needs("skopeo")
def test_a_store_that_was_pushed_to_by_a_real_client_is_sound_and_shown(registry, tmp_path):
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    layout = f"oci:{tmp_path}/layout:v1"
    subprocess.run([*copy, f"docker://{registry.address}/another:v1", layout], check=True)
    for tag, form in (("oci", "oci"), ("docker", "v2s2")):
        subprocess.run([*copy, "--format", form, layout, f"docker://{registry.address}/by/skopeo:{tag}"], check=True)
    assert verified(registry.root)["damage"] == set()
    [repository] = asked("ls by/skopeo", registry.root)["repositories"]
    assert {tag["tag"]: tag["kind"] for tag in repository["tags"]} == {"oci": "OCI image", "docker": "image"}


# What a collection deletes --------------------------------------------------------------------------------------------


def breaks_indexes(registry: Registry) -> bool:
    """Whether -m deletes what tagged indexes reference: true for distribution, not for GitLab's registry."""
    return registry.program == find("docker-registry")


def would_go(registry: Registry, *options: str) -> tuple[set[str], set[str]]:
    data = asked(" ".join(["reclaim", *options]), registry.root)
    assert all(row["why"] for row in data["blobs"])
    return (
        {row["digest"] for row in data["blobs"]},
        {f"{row['repository']}@{row['digest']}" for row in data["manifests"]},
    )


def test_reclaim_lists_what_the_registrys_own_collection_takes(registry):
    listed = would_go(registry)
    assert len(listed[0]) == 4
    assert listed == registry.collect()
    assert would_go(registry) == (set(), set())
    assert verified(registry.root)["damage"] == set()


def test_reclaim_with_untagged_manifests_lists_what_the_registrys_own_collection_takes(registry, filled):
    if breaks_indexes(registry):
        done = run("reclaim --untagged", registry.root)
        assert done.returncode == 1
        broken = set(re.findall("^REFUSED would be lost: .*; needed by (.*)", done.stdout, re.MULTILINE))
        assert broken == {"multi:latest", "often:multi"}
        return
    blobs, manifests = would_go(registry, "--untagged")
    assert {f"often@{filled.made[name]}" for name in ("round 0", "round 1")} <= manifests
    assert (blobs, manifests) == registry.collect("-m")
    assert would_go(registry, "--untagged") == (set(), set())
    assert verified(registry.root)["damage"] == set()


def test_reclaim_says_of_each_blob_where_it_comes_from(filled):
    if breaks_indexes(filled.registry):
        pytest.skip("GitLab's registry is not in LAB_PARTS, Debian's breaks indexes")
    why = {row["digest"]: row["why"] for row in asked("reclaim --untagged", filled.registry.root)["blobs"]}
    layer = digest_of(some_bytes("pushed without a manifest"))
    assert why[layer] == "layer of group/gone that none of its manifests references"
    assert why[filled.made["round 0"]] == "untagged manifest of often, formerly often:nightly"
    assert why[bytes_of("round 0")] == f"only needed by the untagged often@{filled.made['round 0']}"


def test_an_index_in_an_index_is_no_garbage_and_a_subject_is_needed_by_nobody(registry):
    inner = registry.push_index("nested", "", {registry.push_image("nested", "", some_bytes("i"), oci=True): "a/b"})
    entry = {"mediaType": OCI_INDEX, "digest": inner, "size": registry.size(inner)}
    registry.push_manifest("nested", "outer", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    subject = registry.push_image("nested", "", some_bytes("subject"), oci=True)
    described = {"mediaType": OCI_IMAGE, "digest": subject, "size": registry.size(subject)}
    registry.push_artifact("nested", "signature", b"signed", subject=described)
    assert would_go(registry) == registry.collect()
    done = run("reclaim --untagged", registry.root)
    assert done.returncode == 1
    assert "; needed by nested:outer\n" in done.stdout
    assert "nested:signature" not in done.stdout


@pytest.mark.parametrize("damage", ["revision", "manifest", "layers"])
def test_no_collection_is_foretold_where_damage_would_make_it_take_too_much(registry, filled, damage):
    if damage == "revision":
        (registry.store / link("another", "_manifests/revisions", filled.made["elsewhere"])).write_text("sha256:")
    elif damage == "manifest":
        (registry.store / blob(filled.made["elsewhere"])).write_text("{}")
    else:
        shutil.rmtree(registry.store / "repositories/another/_layers")
    done = run("reclaim --json", registry.root)
    assert done.returncode == 1
    assert json.loads(done.stdout)["blobs"] == []
    assert len(json.loads(done.stdout)["damage"]) == 1


# Problems -------------------------------------------------------------------------------------------------------------

Found = set[tuple[str, str]]


def missing_blob(store: Path, made: dict[str, str]) -> Found:
    (store / blob(bytes_of("app"))).unlink()
    return {("missing blob", blob(bytes_of("app")))}


def missing_manifest(store: Path, made: dict[str, str]) -> Found:
    (store / blob(made["amd64"])).unlink()
    return {("missing blob", blob(made["amd64"]))}


def wrong_digest(store: Path, made: dict[str, str]) -> Found:
    path = store / blob(bytes_of("another"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return {("wrong digest", blob(bytes_of("another")))}


def truncated_file(store: Path, made: dict[str, str]) -> Found:
    os.truncate(store / blob(bytes_of("other")), 100)
    return {("truncated file", blob(bytes_of("other")))}


def empty_file(store: Path, made: dict[str, str]) -> Found:
    os.truncate(store / blob(bytes_of("attested")), 0)
    return {("truncated file", blob(bytes_of("attested")))}


def malformed_link(store: Path, made: dict[str, str]) -> Found:
    path = link("often", "_manifests/revisions", made["round 3"])
    (store / path).write_text(made["round 3"] + "\n")
    return {("malformed link", path)}


def empty_link(store: Path, made: dict[str, str]) -> Found:
    path = link("often", "_manifests/tags/nightly/index", made["round 0"])
    (store / path).write_text("")
    return {("malformed link", path)}


def link_to_another_layer(store: Path, made: dict[str, str]) -> Found:
    path = link("group/app/nested/deep", "_layers", bytes_of("other"))
    (store / path).write_text(digest_of(some_bytes("base", 20_000)))
    return {("malformed link", path)}


def malformed_manifest(store: Path, made: dict[str, str]) -> Found:
    content = b'{"schemaVersion": 2, "mediaType": "text/plain"}'
    for path, text in (
        (blob(digest_of(content)), content),
        (link("group/gone", "_manifests/revisions", digest_of(content)), digest_of(content).encode()),
    ):
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(text)
    return {("malformed manifest", blob(digest_of(content)))}


def tag_to_nothing(store: Path, made: dict[str, str]) -> Found:
    path = "repositories/another/_manifests/tags/v1/current/link"
    (store / path).write_text(made["app"])
    return {("dangling link", path)}


def tag_of_a_manifest_whose_link_is_gone(store: Path, made: dict[str, str]) -> Found:
    (store / link("often", "_manifests/revisions", made["round 3"])).unlink()
    return {("dangling link", "repositories/often/_manifests/tags/nightly/current/link")}


def missing_layer_link(store: Path, made: dict[str, str]) -> Found:
    path = link("artifacts/reports", "_layers", digest_of(b"a report"))
    (store / path).unlink()
    return {("missing link", path)}


def missing_link_of_a_platform(store: Path, made: dict[str, str]) -> Found:
    path = link("multi", "_manifests/revisions", made["arm64"])
    (store / path).unlink()
    return {("missing link", path)}


def missing_link_of_a_tag(store: Path, made: dict[str, str]) -> Found:
    path = "repositories/group/gone/_manifests/tags/new/current/link"
    (store / path).unlink()
    return {("missing link", path)}


def missing_history(store: Path, made: dict[str, str]) -> Found:
    path = link("group/app", "_manifests/tags/1.0/index", made["app"])
    (store / path).unlink()
    return {("missing link", path)}


def link_in_the_file_system(store: Path, made: dict[str, str]) -> Found:
    path = store / blob(bytes_of("arm64"))
    path.rename(store.parent / "elsewhere")
    path.symlink_to(store.parent / "elsewhere")
    return {("not a file or folder", blob(bytes_of("arm64")))}


def misplaced_file(store: Path, made: dict[str, str]) -> Found:
    (store / "blobs/sha256/zz/none").mkdir(parents=True, exist_ok=True)
    (store / "blobs/sha256/zz/none/data").write_text("x")
    return {("misplaced file", "blobs/sha256/zz/none/data")}


DAMAGES: list[Callable[[Path, dict[str, str]], Found]] = [
    missing_blob,
    missing_manifest,
    wrong_digest,
    truncated_file,
    empty_file,
    malformed_link,
    empty_link,
    link_to_another_layer,
    malformed_manifest,
    tag_to_nothing,
    tag_of_a_manifest_whose_link_is_gone,
    missing_layer_link,
    missing_link_of_a_platform,
    missing_link_of_a_tag,
    missing_history,
    link_in_the_file_system,
    misplaced_file,
]
EXCLUDE_EACH_OTHER = [{malformed_link, tag_of_a_manifest_whose_link_is_gone}]
"""Each removes the file that the other one changes."""


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damage_is_found_and_named_and_nothing_else_is(registry, filled, damage):
    expected = damage(registry.store, filled.made)
    done = run("verify", registry.root)
    assert done.returncode == 1
    assert set(re.findall("^DAMAGE (.+?): (.+?): ", done.stdout, re.MULTILINE)) == expected


def test_two_damages_at_a_time_are_both_found_and_nothing_else_is(registry, filled):
    pairs = [pair for pair in itertools.combinations(DAMAGES, 2) if set(pair) not in EXCLUDE_EACH_OTHER]
    for one, other in random.Random(4711).sample(pairs, min(len(pairs), 10 * EFFORT)):
        expected = one(registry.store, filled.made) | other(registry.store, filled.made)
        assert verified(registry.root)["damage"] == expected, f"{one.__name__} and {other.__name__}"
        registry.restore(filled.state)
        assert registry.state() == filled.state
    assert verified(registry.root)["damage"] == set()


def test_several_processes_find_what_one_finds(registry, filled, monkeypatch):
    for damage in (missing_blob, wrong_digest, truncated_file, empty_link, tag_to_nothing, missing_layer_link):
        damage(registry.store, filled.made)
    alone = run("verify --json --jobs 1", registry.root)
    monkeypatch.setattr(verify, "CHUNK_REPOSITORIES", 1)
    monkeypatch.setattr(hashing, "CHUNK_FILES", 3)
    assert len(json.loads(alone.stdout)["damage"]) == 6
    assert verified(registry.root, jobs=3) == dict(
        json.loads(alone.stdout), damage={(row["kind"], row["path"]) for row in json.loads(alone.stdout)["damage"]}
    )


def test_manifests_that_give_a_wrong_size_are_named_and_are_no_damage(registry):
    config = dict(registry.push_blob("lies", b"{}"), mediaType="application/vnd.oci.empty.v1+json")
    digests = []
    for size in (4, 6):
        layer = dict(registry.push_blob("lies", b"five!"), mediaType="text/plain", size=size)
        manifest = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config, "layers": [layer]}
        digests.append(registry.push_manifest("lies", f"of-{size}", manifest))
    found = json.loads(run("verify --json", registry.root).stdout)
    assert found["damage"] == []
    assert {notice["path"] for notice in found["notices"] if notice["kind"] == "wrong size"} == set(digests)
    assert run("reclaim", registry.root).returncode == 0


def test_a_damaged_blob_names_those_who_need_it(registry, filled):
    missing_blob(registry.store, filled.made)
    [damage] = json.loads(run("verify --json", registry.root).stdout)["damage"]
    assert damage["needed_by"] == [f"group/app@{filled.made['app']}"]


def test_a_file_that_cannot_be_read_is_damage(registry, filled, monkeypatch):
    real = os.open

    def failing(path, *arguments, **more):
        if str(path).endswith(blob(bytes_of("app"))):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", failing)
    assert verified(registry.root)["damage"] == {("unreadable", blob(bytes_of("app")))}


def test_random_corruptions_are_all_found(server, tmp_path):
    registry = Registry(server, tmp_path / "small")
    with registry.running():
        image = registry.push_image("a/b", "1", some_bytes("small", 200), oci=True)
        registry.push_index("a/b", "2", {image: "linux/amd64"})
    files = [path for path in registry.store.rglob("*") if path.is_file() and "_uploads" not in path.parts]
    chance = random.Random(4711)
    for number in range(25 * EFFORT):
        path = chance.choice(files)
        sound = path.read_bytes()
        place = chance.randrange(len(sound))
        damaged = chance.choice(
            [
                sound[:place] + bytes([sound[place] ^ chance.randrange(1, 256)]) + sound[place + 1 :],
                sound[:place] + chance.randbytes(1) + sound[place:],
                sound[:place] + sound[place + 1 :],
                sound[:place],
            ]
        )
        path.write_bytes(damaged)
        try:
            found = verified(registry.root)["damage"]
            assert str(path.relative_to(registry.store)) in {where for _, where in found}, (number, path, damaged)
            for gather, words in (
                (ls.gather, {"repository": ""}),
                (du.gather, {"by": "tag"}),
                (reclaim.gather, {"root": str(registry.root), "untagged": number % 2 == 0}),
            ):
                store = Store(str(registry.root), Progress(None))
                gather(store, argparse.Namespace(**words))
        finally:
            path.write_bytes(sound)
    assert verified(registry.root)["damage"] == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schemaVersion": 3}',
        b'{"schemaVersion": 2, "manifests": 5}',
        b'{"schemaVersion": 2, "layers": []}',
        b'{"schemaVersion": 2, "config": {"digest": "sha256:00", "size": 1}}',
        b'{"schemaVersion": 2, "config": {"digest": 7, "size": 1}}',
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "size": 1e3}}' % (b"0" * 64),
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "size": "1"}}' % (b"0" * 64),
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "size": true}}' % (b"0" * 64),
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "size": 9223372036854775808}}' % (b"0" * 64),
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "annotations": {"a": 1}}}' % (b"0" * 64),
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "mediaType": 7}}' % (b"0" * 64),
        b'{"schemaVersion": 2.0, "config": {"digest": "sha256:%s"}}' % (b"0" * 64),
        b'{"schemaVersion": true, "fsLayers": []}',
        b'{"schemaVersion": 2, "config": {"digest": "sha256:%s"}, "layers": [NaN]}' % (b"0" * 64),
        b'\xef\xbb\xbf{"schemaVersion": 2, "config": {"digest": "sha256:%s"}}' % (b"0" * 64),
        '{"schemaVersion": 1, "fsLayers": []}'.encode("utf-16"),
        b'{"schemaVersion": 1, "fsLayers": [{}]}',
    ],
)
def test_what_is_no_manifest_is_called_malformed(content):
    with pytest.raises(ManifestError) as error:
        parse_manifest("sha256:x", content)
    assert error.value.kind == "malformed manifest"


# Unusual content that is valid ----------------------------------------------------------------------------------------


def test_what_a_collection_leaves_and_a_copy_from_object_storage_adds_is_sound(registry, filled):
    registry.collect()
    for folder in (
        "blobs/sha256/00/" + "00" * 32,
        "repositories/group/app/_manifests/tags/former",
        "repositories/empty",
    ):
        (registry.store / folder).mkdir(parents=True)
    stale = next((registry.store / "repositories/group/app/_uploads").iterdir())
    for path in stale.rglob("*"):
        os.utime(path, (0, 0))
    done = run("verify", registry.root)
    assert done.returncode == 0, done.stdout
    assert "stale upload  group/app/_uploads/" in done.stdout
    assert done.stdout.endswith("no problems found\n")
    assert "former" not in run("ls", registry.root).stdout


def test_a_blob_that_no_repository_links_is_named_and_is_no_damage(registry):
    content = b"nobody's"
    (registry.store / blob(digest_of(content))).parent.mkdir(parents=True, exist_ok=True)
    (registry.store / blob(digest_of(content))).write_bytes(content)
    data = verified(registry.root)
    assert data["damage"] == set()
    assert ("unreferenced blob", digest_of(content)) in {(row["kind"], row["path"]) for row in data["notices"]}


def test_layers_that_are_kept_elsewhere_may_be_missing(registry):
    config = dict(registry.push_blob("windows", b"{}"), mediaType="application/vnd.docker.container.image.v1+json")
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer = {"mediaType": kind, "digest": digest_of(b"?"), "size": 1, "urls": ["https://example.com/layer"]}
    manifest = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]}
    registry.push_manifest("windows", "latest", manifest)
    assert verified(registry.root)["damage"] == set()


def test_what_changed_while_it_was_read_is_looked_at_again(registry, filled, monkeypatch):
    missing_blob(registry.store, filled.made)
    wrong_digest(registry.store, filled.made)
    check = verify.check

    def repaired_after_the_first_check(*arguments, **more):
        seen = check(*arguments, **more)
        for name in ("app", "another"):
            (registry.store / blob(bytes_of(name))).write_bytes(some_bytes(name))
        return seen

    monkeypatch.setattr(verify, "check", repaired_after_the_first_check)
    assert verified(registry.root)["damage"] == set()


# Execution ------------------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def test_it_writes_nothing_into_the_store(registry):
    before = snapshot(registry.root)
    for command in COMMANDS:
        assert run(command, registry.root).returncode == 0
    assert snapshot(registry.root) == before


def test_one_image_is_verified_down_to_its_layers_by_tag_or_by_digest(registry, filled):
    wrong_digest(registry.store, filled.made)  # in another:v1
    for image, status in (
        ("multi:latest", 0),
        (f"group/app@{filled.made['app']}", 0),
        ("another:v1", 1),
        (f"another@{filled.made['elsewhere']}", 1),
        (f"another@{filled.made['app']}", 2),
        ("nobody:v1", 2),
        ("another:v2", 2),
        ("../blobs:v1", 2),
    ):
        assert run(f"verify {image}", registry.root).returncode == status, image


def test_a_folder_that_is_a_link_is_not_followed(registry, tmp_path):
    folder = registry.store / "repositories/often"
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    done = run("ls", registry.root)
    assert done.returncode == 1
    assert "nightly" not in done.stdout
    assert "DAMAGE not a file or folder: repositories/often: " in done.stdout


def test_a_registry_with_a_metadata_database_is_told_from_a_broken_one(registry):
    (registry.store.parent / "lockfiles").mkdir(exist_ok=True)
    (registry.store.parent / "lockfiles/database-in-use").write_text('{"version":1}')
    for command in COMMANDS:
        done = run(command, registry.root)
        assert done.returncode == (0 if command.split()[0] in ("du", "verify") else 2), command
        assert "database" in done.stdout + done.stderr


@pytest.mark.parametrize("where", ["", "docker", "docker/registry", "docker/registry/v2"])
def test_the_store_is_found_from_the_registrys_root_and_from_below(filled, where):
    assert run("verify", filled.registry.root / where).returncode == 0


def test_where_there_is_no_registry_it_could_not_look(tmp_path):
    done = run("verify", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not contain a registry" in done.stderr
    (tmp_path / "docker/registry/lockfiles").mkdir(parents=True)
    assert run("verify", tmp_path).returncode == 0  # a registry that has started and is still empty


WITH_OTHER_WORKERS = """
import os, sys, time
from programs.registry_tree import cli, hashing, verify
def work(chunk):
    {work}
hashing.CHUNK_FILES, verify.hash_chunk = 1, work
sys.argv[1:] = ["verify", "--jobs", "2", "--root", {root!r}]
cli.run()
"""


def with_other_workers(root: Path, work: str) -> subprocess.Popen[str]:
    """Run `verify` with two worker processes that do this with each blob."""
    return subprocess.Popen(
        [sys.executable, "-c", WITH_OTHER_WORKERS.format(work=work, root=str(root))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


@pytest.mark.parametrize(
    ("work", "message"),
    [("os.kill(os.getpid(), 9)", "try again with --jobs 1"), ("raise MemoryError", "MemoryError")],
)
def test_work_that_could_not_be_done_is_not_taken_for_damage(filled, work, message):
    process = with_other_workers(filled.registry.root, work)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert message in errors


def test_an_interrupt_ends_it_at_once_and_in_silence(filled):
    process = with_other_workers(filled.registry.root, "time.sleep(60)")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_says_on_a_terminal_how_far_it_is_and_nothing_elsewhere(filled, monkeypatch):
    monkeypatch.setattr(time, "monotonic", itertools.count().__next__)
    for terminal, said in ((Terminal(), {"listing blobs", "manifests", "reading blobs"}), (io.StringIO(), set())):
        store = Store(str(filled.registry.root), Progress(terminal))
        verify.gather(store, argparse.Namespace(root=str(filled.registry.root), images=[], jobs=1))
        lines = terminal.getvalue().split("\r\033[K")[1:]
        assert said == {line.split(":")[0].split(" of ")[0] for line in lines}
        assert all(re.search(r": \d+$", line) for line in lines)


def test_names_cannot_command_the_terminal(registry):
    (registry.store / "repositories/evil\x1b[2J/_layers").mkdir(parents=True)
    done = run("ls", registry.root)
    assert "evil" in done.stdout
    assert "\x1b" not in done.stdout


EACH_IN_ONE_PROCESS = """
import json, os, sys, tempfile
program, root, *commands = sys.argv[1:]
sys.path.insert(0, program)
from programs.registry_tree import cli
printed = os.dup(1)
for command in commands:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        status = cli.main(command.split() + ["--root", root])
        output.seek(0)
        os.write(printed, json.dumps([command, status, output.read()]).encode() + b"\\n")
"""


def test_python_3_6_says_the_same(filled):
    commands = [*COMMANDS, "reclaim --untagged", "ls --json", "verify --json"]
    here = {command: run(command, filled.registry.root) for command in commands}
    arguments = [oldest_python(), "-c", EACH_IN_ONE_PROCESS, PROGRAM, filled.registry.root, *commands]
    old = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (old.returncode, old.stderr) == (0, "")
    new = [[command, done.returncode, done.stdout] for command, done in here.items()]
    assert [json.loads(line) for line in old.stdout.splitlines()] == new


@pytest.mark.parametrize("command", ["verify", "show no:tag"])
def test_the_program_on_the_machine_runs_with_python_3_6(filled, command):
    old, new = installed(command, filled.registry.root, python=oldest_python()), run(command, filled.registry.root)
    assert (old.returncode, old.stdout, old.stderr) == (new.returncode, new.stdout, new.stderr)


NEWER_THAN_3_6 = re.compile(
    r":=|from __future__ import annotations|capture_output|text=True|removeprefix|removesuffix|fromisoformat|missing_ok"
    r"|nullcontext|cached_property|functools\.cache\b|shlex\.join|math\.prod|time_ns|mp_context|initializer=|breakpoint\("
    r"|importlib\.(resources|metadata)|\b(Protocol|TypedDict|Final|Literal|NoReturn|OrderedDict|runtime_checkable)\b"
    r"|\b(dict|list|set|tuple|type)\["
)
NEW_MODULES = {"contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_is_written_in_python_3_6_and_needs_only_the_standard_library(path):
    nodes = list(ast.walk(ast.parse(path.read_text(), feature_version=(3, 6))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names - NEW_MODULES
    assert not NEWER_THAN_3_6.search(path.read_text())


def test_it_is_run_by_the_python_of_rhel_8():
    assert PROGRAM.read_bytes().startswith(b"#!/usr/libexec/platform-python\n")


def test_a_checkout_runs_it_as_well(filled):
    command = [sys.executable, "-m", "programs.registry_tree", "ls", "--root", filled.registry.root]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == run("ls", filled.registry.root).stdout


def test_a_reader_that_stops_reading_is_no_failure(filled):
    command = f"set -o pipefail; {sys.executable} {PROGRAM} show multi:latest --root {filled.registry.root} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
