"""Compares the predictions of `registry-tree` with the garbage collections of real registry servers."""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from programs.registry_tree import du, ls, reclaim, show, verify
from programs.registry_tree.obstacles import why_no_name
from programs.registry_tree.store import Store
from programs.registry_tree.text import Progress
from tests.effort import EFFORT
from tests.random_stores import BUILDKIT, judge, served
from tools.registry_server import IMAGE_LIST, OCI_IMAGE, OCI_INDEX, SERVERS, Registry, State, digest_of, some_bytes

GITLABS = SERVERS[1]


@pytest.fixture(scope="module")
def image(server, tmp_path_factory) -> Iterator[tuple[Registry, State]]:
    """A running registry with one image, a/b:1, and its state."""
    with Registry(server, tmp_path_factory.mktemp("image")).running() as registry:
        registry.push_image("a/b", "1", b"a layer", oci=True)
        yield registry, registry.state()


@pytest.fixture
def made(image) -> Iterator[Registry]:
    """The registry with one image, which a test may change: it is restored afterwards."""
    registry, state = image
    yield registry
    registry.restore(state)


def asked(gather: Callable[..., dict[str, Any]], root: Path, **options: object) -> tuple[Store, dict[str, Any]]:
    store = Store(str(root), Progress(None))
    options = {"root": str(root), "images": [], "jobs": 1, "by": "repo", "repository": "", "untagged": False} | options
    return store, gather(store, argparse.Namespace(**options))


def refusals(root: Path, *, untagged: bool = False) -> list[tuple[str, str, list[str]]]:
    """Why `reclaim` refuses: kind, path and images; then it lists nothing to free."""
    store, data = asked(reclaim.gather, root, untagged=untagged)
    found = [(each.kind, each.path, each.needed_by) for each in [*store.problems, *store.obstacles]]
    assert not found or data["blobs"] == data["manifests"] == []
    return found


def damage(root: Path) -> set[tuple[str, str]]:
    store, _ = asked(verify.gather, root)
    return {(each.kind, each.path) for each in store.problems}


def ends(registry: Registry, *options: str) -> bool:
    """Whether the server's own collection fails."""
    return registry.garbage_collect("--dry-run", *options).returncode != 0


# Collections that would delete what a tag needs -----------------------------------------------------------------------


def image_of(layer: dict[str, object], config: dict[str, object] | None = None) -> dict[str, object]:
    config = config or layer
    return {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config, "layers": [layer]}


def index_of(*entries: dict[str, object], media_type: str = OCI_INDEX) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}


def child(registry: Registry, **more: object) -> dict[str, object]:
    digest = registry.push_image("a/b", "", some_bytes("child"), oci=True)
    return {"mediaType": OCI_IMAGE, "digest": digest, "size": registry.size(digest), **more}


def layer_by_another_digest(registry: Registry, algorithm: str = "sha512") -> None:
    """Push an OCI manifest with a layer that has a sha512 digest."""
    config = registry.push_blob("a/b", b"{}")
    registry.push_manifest("a/b", "t", image_of(registry.push_blob("a/b", b"by another", algorithm), config))


def layer_by_sha384(registry: Registry) -> None:
    layer_by_another_digest(registry, "sha384")


def configuration_by_sha512(registry: Registry) -> None:
    layer = registry.push_blob("a/b", b"a layer")
    registry.push_manifest("a/b", "t", image_of(layer, registry.push_blob("a/b", b"{}", "sha512")))


def cache_by_sha512(registry: Registry) -> None:
    entry = dict(registry.push_blob("a/b", b"{}"), mediaType=BUILDKIT)
    registry.push_manifest("a/b", "t", index_of(registry.push_blob("a/b", b"cached", "sha512"), entry))


def image_in_an_index_by_sha512(registry: Registry) -> None:
    layer_by_another_digest(registry)
    digest = registry.push_manifest("a/b", "t", image_of(registry.push_blob("a/b", b"by another", "sha512")))
    entry = {"mediaType": OCI_IMAGE, "digest": digest, "size": registry.size(digest)}
    registry.push_manifest("a/b", "t", index_of(entry))


def index_in_an_index(registry: Registry, depth: int = 2) -> None:
    entry = child(registry)
    for level in range(depth):
        digest = registry.push_manifest("a/b", "t" if level == depth - 1 else "", index_of(entry))
        entry = {"mediaType": OCI_INDEX, "digest": digest, "size": registry.size(digest)}


def index_four_deep(registry: Registry) -> None:
    index_in_an_index(registry, 4)


def list_in_a_list(registry: Registry) -> None:
    digest = registry.push_manifest("a/b", "", index_of(child(registry), media_type=IMAGE_LIST))
    entry = {"mediaType": IMAGE_LIST, "digest": digest, "size": registry.size(digest)}
    registry.push_manifest("a/b", "t", index_of(entry, media_type=IMAGE_LIST))


def entry_without_media_type(registry: Registry) -> None:
    entry = child(registry)
    del entry["mediaType"]
    registry.push_manifest("a/b", "t", index_of(entry))


def entry_with_no_media_type(registry: Registry) -> None:
    registry.push_manifest("a/b", "t", index_of(child(registry, mediaType=None)))


def entry_of_an_unknown_media_type(registry: Registry) -> None:
    registry.push_manifest("a/b", "t", index_of(child(registry, mediaType="application/vnd.example+json")))


def referrers_without_media_type(registry: Registry) -> None:
    subject = child(registry)
    digest = registry.push_artifact("a/b", "", b"signed", subject=subject)
    entry = {"digest": digest, "size": registry.size(digest), "artifactType": "application/vnd.example.report"}
    registry.push_manifest("a/b", "t", index_of(entry))


TAKEN_BY_ANY = [
    layer_by_another_digest,
    layer_by_sha384,
    configuration_by_sha512,
    cache_by_sha512,
    image_in_an_index_by_sha512,
]
TAKEN_WITH_UNTAGGED = [
    index_in_an_index,
    index_four_deep,
    list_in_a_list,
    entry_without_media_type,
    entry_with_no_media_type,
    entry_of_an_unknown_media_type,
    referrers_without_media_type,
]


def is_refused_and_breaks_a_tag(registry: Registry, option: str) -> None:
    """Check that `reclaim` refuses the collection with this option, and that the server's own breaks a/b:t."""
    before = served(registry)
    assert damage(registry.root) == set()
    found = refusals(registry.root, untagged=bool(option))
    assert {kind for kind, _, _ in found} == {"would be lost"}
    assert all("a/b:t" in images for _, _, images in found)
    registry.collect(*filter(None, [option]))
    assert served(registry) != before, "the server's collection does not break the image"


@pytest.mark.parametrize("option", ["", "-m"])
@pytest.mark.parametrize("push", TAKEN_BY_ANY, ids=lambda push: push.__name__)
def test_a_collection_that_would_break_an_image_is_refused_with_its_name(made, push, option):
    push(made)
    is_refused_and_breaks_a_tag(made, option)


@pytest.mark.parametrize("push", TAKEN_WITH_UNTAGGED, ids=lambda push: push.__name__)
def test_an_index_is_kept_by_a_collection_unless_it_takes_untagged_manifests_which_is_refused(made, push):
    push(made)
    before = served(made)
    assert refusals(made.root) == []
    made.collect()
    assert served(made) == before
    is_refused_and_breaks_a_tag(made, "-m")


def test_an_index_of_images_is_kept_by_gitlabs_collection_and_broken_by_distributions(made, server):
    made.push_manifest("a/b", "t", index_of(child(made)))
    found = refusals(made.root, untagged=True)
    if server == GITLABS:
        assert found == []
    else:
        assert {(kind, *images) for kind, _, images in found} == {("would be lost", "a/b:t")}
        (made.store.parent / "lockfiles").mkdir()
        (made.store.parent / "lockfiles/filesystem-in-use").touch()
        assert refusals(made.root, untagged=True) == []


def test_a_manifest_that_an_index_names_and_was_pushed_as_a_layer_is_not_lost(made, server):
    if server == GITLABS:
        pytest.skip("GitLab's registry rejects it")
    content = json.dumps(image_of(made.push_blob("a/b", b"hidden"))).encode()
    entry = dict(made.push_blob("a/b", content), mediaType=OCI_IMAGE)
    made.push_manifest("a/b", "t", index_of(entry))
    assert damage(made.root) == set()
    assert {tuple(images) for _, _, images in refusals(made.root)} == {("a/b:t",)}


def test_what_is_shared_with_an_image_that_stays_may_be_named_by_any_digest(made):
    layer_by_another_digest(made)
    made.push_image("other", "1", b"by another", b"{}", oci=True)
    assert refusals(made.root) == []
    before = served(made)
    made.collect()
    assert served(made) == before


def test_an_image_can_do_without_the_subject_that_it_is_about(made):
    subject = child(made)
    made.push_artifact("a/b", "signature", b"signed", subject=subject)
    before = served(made)
    assert refusals(made.root, untagged=True) == []
    taken, _ = made.collect("-m")
    assert taken
    assert served(made) == before


def test_a_layer_by_another_digest_is_shown_counted_and_verified(made):
    layer_by_another_digest(made)
    _, shown = asked(show.gather, made.root, image="a/b:t")
    layer = next(row for row in shown["contents"] if row["role"] == "layer")
    assert layer["digest"].startswith("sha512:")
    assert (made.store / layer["path"]).read_bytes() == b"by another"
    _, usage = asked(du.gather, made.root)
    assert usage["neededBytes"] == usage["storedBytes"] == usage["referencedBytes"]
    assert damage(made.root) == set()
    (made.store / layer["path"]).write_bytes(b"by ANOTHER")
    assert {("wrong digest", layer["path"])} <= damage(made.root)
    (made.store / layer["path"]).unlink()
    assert damage(made.root) == {("missing blob", layer["path"])}


def test_a_link_by_another_digest_that_leads_to_other_bytes_is_damage(made):
    layer_by_another_digest(made)
    [link] = made.store.glob("repositories/a/b/_layers/sha512/*/link")
    link.write_text(digest_of(b"a layer"))
    assert ("malformed link", str(link.relative_to(made.store))) in damage(made.root)


@pytest.mark.parametrize("seed", range(2 * EFFORT))
def test_no_tag_of_a_random_store_loses_a_byte_to_a_collection_that_was_let_pass(server, tmp_path, seed):
    judge(server, seed, tmp_path)


# What the registry accepts and serves ---------------------------------------------------------------------------------

SERVED: dict[str, dict[str, object]] = {
    "no size": {"size": None, "drop": "size"},
    "size null": {"size": None},
    "size 0": {"size": 0},
    "size -1": {"size": -1},
    "no media type": {"drop": "mediaType"},
    "media type null": {"mediaType": None},
    "unknown media type": {"mediaType": "text/x-unknown"},
    "annotations null": {"annotations": None},
    "addresses null": {"urls": None},
    "platform null": {"platform": None},
    "unknown fields": {"data": "e30=", "x": [1.5, {"size": "large", "digest": 7}]},
}
WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "names in capitals": lambda text: text.replace(b'"layers"', b'"LAYERS"').replace(b'"digest"', b'"Digest"'),
    "a name twice": lambda text: text.replace(b'"layers":', b'"layers": [{"size": 99, "digest": "x"}], "Layers":'),
    "Latin-1": lambda text: text.replace(b"{", b'{"annotations": {"author": "Jos\xe9"},', 1),
    "half a surrogate": lambda text: text.replace(b"{", b'{"annotations": {"author": "\\ud83d"},', 1),
    "no media type": lambda text: text.replace(b'"mediaType"', b'"was"', 1),
    "media type null": lambda text: text.replace(json.dumps(OCI_IMAGE).encode(), b"null", 1),
    "media type empty": lambda text: text.replace(json.dumps(OCI_IMAGE).encode(), b'""', 1),
    "manifests of no index": lambda text: text.replace(
        json.dumps(OCI_IMAGE).encode(), json.dumps(OCI_IMAGE).encode() + b', "manifests": null'
    ),
    "subject null": lambda text: text.replace(b"{", b'{"subject": null, "artifactType": null,', 1),
    "blanks": lambda text: b" \r\n\t" + text + b"\n\n",
}


def plain(registry: Registry, oddity: str, **more: object) -> bytes:
    """The manifest of an image with one layer, which no other image has."""
    config = dict(registry.push_blob("a/b", b"{}"), mediaType="application/vnd.oci.image.config.v1+json")
    layer = dict(registry.push_blob("a/b", oddity.encode()), mediaType="application/vnd.oci.image.layer.v1.tar")
    layer |= more
    layer.pop(str(layer.pop("drop", "")), None)
    return json.dumps(image_of(layer, config)).encode()


def are_taken(registry: Registry, manifests: dict[str, bytes]) -> None:
    """Check that the server accepts and serves these manifests, and that registry-tree accepts them."""
    tags = {oddity: oddity.replace(" ", "-") for oddity in manifests}
    for oddity, body in manifests.items():
        registry.push_manifest_bytes("a/b", tags[oddity], body, OCI_IMAGE)
        assert registry.get(f"/v2/a/b/manifests/{tags[oddity]}", Accept=OCI_IMAGE) == body, oddity
    before = served(registry)
    assert damage(registry.root) == set()
    _, data = asked(ls.gather, registry.root)
    kinds = {tag["tag"]: tag["kind"] for tag in data["repositories"][0]["tags"]}
    assert kinds.keys() == {"1", *tags.values()}
    assert set(kinds.values()) <= {"OCI image", "artifact"}, kinds
    for oddity in manifests:
        _, shown = asked(show.gather, registry.root, image=f"a/b:{tags[oddity]}")
        assert digest_of(oddity.encode()) in {row["digest"] for row in shown["contents"]}, oddity
    assert refusals(registry.root) == []
    assert refusals(registry.root, untagged=True) == []
    registry.collect()
    assert served(registry) == before


def test_a_descriptor_that_the_registry_takes_and_serves_is_no_damage(made):
    are_taken(made, {oddity: plain(made, oddity, **more) for oddity, more in SERVED.items()})


def test_a_manifest_as_the_registry_takes_and_serves_it_is_no_damage(made):
    usual = {oddity: plain(made, oddity) for oddity in WRITTEN}
    odd = {oddity: write(usual[oddity]) for oddity, write in WRITTEN.items()}
    assert not [oddity for oddity in WRITTEN if odd[oddity] == usual[oddity]]
    are_taken(made, odd)


# What aborts a collection, or makes it skip repositories --------------------------------------------------------------

NO_NAMES = ["group/App.BAK", "app copy", "app~", ".Trash/app", ".snapshot/hourly.0/app", "app..b", "a/-b", "a__b___c"]
NAMES = ["App.BAK/app", "group/app.bak", "group/app--2", "x_y", "x__y", "10.0.0.1/app"]


@pytest.mark.parametrize("name", [*NO_NAMES, "c" * 200 + "/" + "d" * 100])
def test_a_folder_that_ends_a_collection_by_its_name_is_named(made, name):
    folder = made.store / "repositories" / name
    shutil.copytree(made.store / "repositories/a/b", folder)
    assert refusals(made.root) == [("stops a collection", f"repositories/{name}", [])]
    store, data = asked(verify.gather, made.root)
    assert not store.problems
    assert [row["path"] for row in data["notices"]] == [f"repositories/{name}"]
    assert ends(made)


def test_copies_of_a_repository_whose_names_the_registry_takes_are_repositories(made):
    for name in NAMES:
        shutil.copytree(made.store / "repositories/a/b", made.store / "repositories" / name)
    assert refusals(made.root) == []
    assert not ends(made)


def test_a_long_name_is_judged_in_no_time():
    assert why_no_name("a" * 250 + "!")


def test_a_folder_that_is_no_repository_may_have_any_name(made):
    (made.store / "repositories/.Trash/x").mkdir(parents=True)
    (made.store / "repositories/.DS_Store").write_bytes(b"x")
    (made.store / "repositories/a/README").write_bytes(b"x")
    assert refusals(made.root, untagged=True) == []
    assert not ends(made, "-m")


@pytest.mark.parametrize("place", ["_note", "a/_note", "_Z"])
def test_a_file_at_which_a_collection_leaves_a_folder_is_named(made, place):
    (made.store / "repositories" / place).write_bytes(b"x")
    assert refusals(made.root) == [("hides repositories", f"repositories/{place}", [])]
    taken, _ = made.collect()
    assert taken, "the server's collection deletes nothing"


def test_layers_outside_of_any_repository_end_a_collection(made):
    (made.store / "repositories/_layers").mkdir()
    assert refusals(made.root) == [("stops a collection", "repositories/_layers", [])]
    assert ends(made)


@pytest.mark.parametrize("stray", [".DS_Store", "Thumbs.db"])
def test_a_file_among_tags_ends_the_collection_that_looks_at_tags(made, stray):
    place = f"repositories/a/b/_manifests/tags/{stray}"
    (made.store / place).write_bytes(b"x")
    assert refusals(made.root) == []
    assert not ends(made)
    assert refusals(made.root, untagged=True) == [("stops a collection", place, [])]
    assert ends(made, "-m")


def test_a_copy_of_a_tag_by_a_name_of_no_path_ends_the_collection_that_looks_at_tags(made):
    tags = made.store / "repositories/a/b/_manifests/tags"
    shutil.copytree(tags / "1", tags / "1 copy")
    assert refusals(made.root, untagged=True) == [("stops a collection", f"{tags.relative_to(made.store)}/1 copy", [])]
    assert ends(made, "-m")


def test_a_repository_without_tags_ends_distributions_collection_of_untagged_manifests(made, server):
    shutil.rmtree(made.store / "repositories/a/b/_manifests/tags")
    found = refusals(made.root, untagged=True)
    assert bool(found) == ends(made, "-m") == (server != GITLABS)


@pytest.mark.parametrize(
    "stray", ["blobs/data", "blobs/sha256/data", "blobs/sha256/ab/data", "blobs/md5/ab/" + "ab" * 16 + "/data"]
)
def test_a_stray_file_among_blobs_that_ends_a_collection_is_damage(made, stray):
    (made.store / stray).parent.mkdir(parents=True, exist_ok=True)
    (made.store / stray).write_bytes(b"x")
    assert refusals(made.root) == [("misplaced file", stray, [])]
    assert damage(made.root) == {("misplaced file", stray)}
    assert ends(made)


@pytest.mark.parametrize("place", ["link", "sha256/link", "md5/" + "ab" * 16 + "/link", "sha256/old/deep/link"])
def test_a_stray_link_among_manifests_is_damage(made, place):
    stray = f"repositories/a/b/_manifests/revisions/{place}"
    (made.store / stray).parent.mkdir(parents=True, exist_ok=True)
    (made.store / stray).write_bytes(b"md5:" + b"ab" * 16)
    assert refusals(made.root) == [("misplaced file", stray, [])]
    assert damage(made.root) == {("misplaced file", stray)}
    assert ends(made)


def test_half_of_a_copy_is_damage_and_nothing_is_foretold(made):
    (made.store / "repositories").rename(made.root / "away")
    assert refusals(made.root) == [("missing folder", "repositories", [])]
    assert damage(made.root) == {("missing folder", "repositories")}
    (made.store / "repositories").mkdir()
    assert refusals(made.root) == [("missing folder", "repositories", [])]
    (made.store / "repositories").rmdir()
    (made.root / "away").rename(made.store / "repositories")
    (made.store / "blobs").rename(made.root / "away")
    assert ("missing folder", "blobs", []) in refusals(made.root)
    assert damage(made.root)


@pytest.mark.parametrize("folder", ["_layers", "_manifests/revisions"])
def test_a_repository_without_half_of_its_links_is_damage(made, folder):
    shutil.rmtree(made.store / "repositories/a/b" / folder)
    assert refusals(made.root)
    assert damage(made.root)


def test_a_registry_to_which_a_push_has_only_begun_is_sound(server, tmp_path):
    registry = Registry(server, tmp_path / "new")
    with registry.running():
        registry.abort_upload("a/b", b"x")
    assert refusals(registry.root) == []
    assert damage(registry.root) == set()


def test_a_blob_that_is_a_folder_is_damage(made):
    [path] = [path for path in made.store.glob("blobs/sha256/*/*/data") if path.read_bytes() == b"a layer"]
    path.unlink()
    path.mkdir()
    assert [kind for kind, _, _ in refusals(made.root)] == ["not a file or folder"]
    assert damage(made.root) == {("not a file or folder", os.path.relpath(path, made.store))}
