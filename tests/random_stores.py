"""Random stores, pushed to a real registry server and garbage collected by it.

After a collection that `registry-tree reclaim` allows, every tag must be served exactly as before.
`python -m tests.random_stores COUNT [SERVER]` tests COUNT stores.
"""

import argparse
import collections
import contextlib
import json
import random
import sys
import tempfile
from pathlib import Path

from programs.registry_tree import reclaim
from programs.registry_tree.store import Store
from programs.registry_tree.text import Progress
from tools.registry_server import IMAGE, IMAGE_LIST, OCI_IMAGE, OCI_INDEX, SERVERS, Registry, digest_of, find

MANIFESTS = (IMAGE, IMAGE_LIST, OCI_IMAGE, OCI_INDEX)
LAYERS = (
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.example.layer",
    "",
    None,
)
BUILDKIT = "application/vnd.buildkit.cacheconfig.v0"
ABSENT = object()


class RandomStore:
    """Pushes usual and unusual content; what a server rejects is skipped."""

    def __init__(self, registry: Registry, seed: int) -> None:
        self.registry = registry
        self.chance = random.Random(seed)
        self.repositories = self.chance.sample(["a", "a/b", "group/app", "x.y/z__0"], self.chance.randint(1, 3))
        self.manifests: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
        self.number = 0
        self.algorithms = self.chance.choices((["sha256"], ["sha256"] * 9 + ["sha512", "sha384"]), (3, 1))[0]
        self.oddity = self.chance.choice((0, 0, 0.2))  # how often an index entry lacks its media type

    def fill(self) -> None:
        """About ten pushes."""
        makers = [self.image, self.image, self.image, self.index, self.index, self.index, self.artifact]
        makers += [self.cache, self.manifest_as_layer, self.delete, self.orphan]
        for repository in self.repositories:
            with contextlib.suppress(AssertionError):
                self.image(repository)
        for _ in range(self.chance.randint(5, 12)):
            with contextlib.suppress(AssertionError):  # the server rejected it
                self.chance.choice(makers)(self.chance.choice(self.repositories))

    def blob(self, repository: str, media_type: object = ABSENT, content: bytes = b"") -> dict[str, object]:
        """The descriptor of a layer that other images may share."""
        content = content or b"layer %d" % self.chance.randrange(30)
        found = self.registry.push_blob(repository, content, self.chance.choice(self.algorithms))
        found["mediaType"] = self.chance.choice(LAYERS) if media_type is ABSENT else media_type
        return self.odd(found)

    def odd(self, descriptor: dict[str, object]) -> dict[str, object]:
        """The descriptor, sometimes without a size, with a differently written field name, or with extra fields."""
        size = self.chance.choices((descriptor["size"], None, 0, ABSENT), (10, 1, 1, 2))[0]
        descriptor["size"] = size
        more = self.chance.choices(({}, {"annotations": None, "urls": None}, {"extra": [{"a": 1}]}), (8, 1, 1))[0]
        kept = {key: value for key, value in {**descriptor, **more}.items() if value is not ABSENT}
        if self.chance.random() < 0.05:
            return {key.upper(): value for key, value in kept.items()}
        return kept

    def push(self, repository: str, manifest: dict[str, object], media_type: str) -> str:
        """Push a manifest, with or without a tag."""
        manifest = {"schemaVersion": 2, "mediaType": self.chance.choice((media_type, media_type, "", None)), **manifest}
        if media_type in (IMAGE, IMAGE_LIST):
            manifest["mediaType"] = media_type
        body = json.dumps(manifest).encode()
        if self.chance.random() < 0.1:
            body = body.replace(b'"schemaVersion"', b'"schemaVersion": 2, "note": "caf\xe9", "SchemaVersion"')
        self.number += 1
        tag = self.chance.choice(("latest", f"v{self.number}", f"v{self.number}", "", ""))
        digest = self.registry.push_manifest_bytes(repository, tag, body, media_type)
        self.manifests[repository].append((digest, media_type))
        return digest

    def image(self, repository: str, **more: object) -> None:
        """An image in the Docker or OCI format."""
        layers = [self.blob(repository) for _ in range(self.chance.randint(0, 3))]
        if self.chance.random() < 0.1:
            urls = ["https://example.com/layer"]
            layers.append({"mediaType": LAYERS[0], "digest": digest_of(b"?"), "size": 1, "urls": urls})
        config = self.blob(repository, "application/vnd.oci.image.config.v1+json", b"{%d}" % self.chance.randrange(9))
        form = OCI_IMAGE if more else self.chance.choice((IMAGE, OCI_IMAGE))
        self.push(repository, {"config": config, "layers": layers, **more}, form)

    def described(self, repository: str) -> dict[str, object]:
        """The descriptor of an existing manifest, usually with its media type."""
        assert self.manifests[repository]
        digest, media_type = self.chance.choice(self.manifests[repository])
        kind: object = media_type
        if self.chance.random() < self.oddity:
            kind = self.chance.choice((ABSENT, ABSENT, None, "", "text/plain"))
        return self.odd({"mediaType": kind, "digest": digest, "size": self.registry.size(digest)})

    def index(self, repository: str) -> None:
        """An index of any existing manifests, including indexes."""
        entries = [self.described(repository) for _ in range(self.chance.randint(0, 3))]
        self.push(repository, {"manifests": entries}, self.chance.choice((OCI_INDEX, OCI_INDEX, IMAGE_LIST)))

    def artifact(self, repository: str) -> None:
        """An artifact with a subject, possibly with an index for the OCI referrers tag schema."""
        subject = self.described(repository)
        self.image(repository, artifactType="application/vnd.example.report", subject=subject)
        digest, media_type = self.manifests[repository][-1]
        if "digest" in subject and self.chance.random() < 0.6:
            entry = {"mediaType": media_type, "digest": digest, "size": 1, "artifactType": "application/x"}
            body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
            self.registry.push_manifest(repository, str(subject["digest"]).replace(":", "-"), body)

    def cache(self, repository: str) -> None:
        """A cache in BuildKit's format: an index of layers."""
        entries = [self.blob(repository) for _ in range(self.chance.randint(1, 3))]
        entries.append(self.blob(repository, BUILDKIT, b"cache"))
        self.push(repository, {"manifests": entries}, OCI_INDEX)

    def manifest_as_layer(self, repository: str) -> None:
        """An index of a manifest that was pushed as a layer, and an image that has a manifest among its layers."""
        digest, media_type = self.chance.choice(self.manifests[repository])
        content = self.registry.get(f"/v2/{repository}/manifests/{digest}", Accept=", ".join(MANIFESTS)) or b"{}"
        other = self.chance.choice(self.repositories)
        entry = dict(self.registry.push_blob(other, content), mediaType=self.chance.choice((media_type, None)))
        if self.chance.random() < 0.5:
            self.push(other, {"manifests": [entry]}, OCI_INDEX)
        else:
            self.push(other, {"config": self.blob(other, "application/json"), "layers": [entry]}, OCI_IMAGE)

    def delete(self, repository: str) -> None:
        """A manifest, which an index may need."""
        if self.chance.random() < 0.5:
            self.registry.delete_manifest(repository, self.chance.choice(self.manifests[repository])[0])

    def orphan(self, repository: str) -> None:
        """A layer that does not belong to an image."""
        self.registry.push_blob(repository, b"orphan %d" % self.number)


def served(registry: Registry) -> dict[str, str]:
    """Everything that the server serves for all tags: repository and path → digest."""
    found: dict[str, str] = {}
    top = registry.store / "repositories"
    for tags in top.rglob("_manifests/tags"):
        repository = str(tags.parents[1].relative_to(top))
        waiting = [(f"manifests/{tag.name}", True) for tag in sorted(tags.iterdir())]
        while waiting:
            path, is_manifest = waiting.pop()
            name = f"/v2/{repository}/{path}"
            if name in found:
                continue
            content = registry.get(name, Accept=", ".join(MANIFESTS))
            if content is not None:
                found[name] = digest_of(content)
                waiting += needed(content) if is_manifest else []
    return found


def needed(content: bytes) -> list[tuple[str, bool]]:
    """Paths of everything that a manifest references, as blob and as manifest, and whether it is a manifest."""

    def lower(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return {key.lower(): value for key, value in pairs}

    document = json.loads(content.decode("latin-1"), object_pairs_hook=lower)
    entries = document.get("manifests") or []
    others = [document.get("config"), *(document.get("layers") or [])]
    paths = [(f"manifests/{entry['digest']}", True) for entry in entries]
    return paths + [(f"blobs/{entry['digest']}", False) for entry in [*entries, *others] if entry]


def judge(server: str, seed: int, folder: Path) -> dict[str, str]:
    """Create a store, and compare the output of `reclaim` with the server's collection, with and without -m.

    Returns for each: free, refused, refused in vain (nothing would have been lost). A loss raises AssertionError.
    """
    words = {}
    with Registry(server, folder).running() as registry:
        RandomStore(registry, seed).fill()
        before, state = served(registry), registry.state()
        for option in ("", "-m"):
            registry.restore(state)
            store = Store(str(registry.root), Progress(None))
            data = reclaim.gather(store, argparse.Namespace(root=str(registry.root), untagged=bool(option)))
            why = [*store.problems, *store.obstacles]
            taken: set[str] | None = None
            with contextlib.suppress(AssertionError):
                taken, _ = registry.collect(*filter(None, [option]))
            after = served(registry)
            lost = {name for name, digest in before.items() if after.get(name) != digest}
            assert why or not lost, (seed, option, lost)
            assert why or taken == {blob["digest"] for blob in data["blobs"]}, (seed, option, taken, data)
            words[option] = "free" if not why else "refused" if lost or taken is None else f"in vain: {why}"
    return words


def main() -> None:
    """Test the number of stores on the command line, with the server named there or all that are installed."""
    for server in sys.argv[2:3] or filter(find, SERVERS):
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        for seed in range(int(sys.argv[1])):
            with tempfile.TemporaryDirectory() as folder:
                for option, word in judge(server, seed, Path(folder)).items():
                    counts[option, word.split(":")[0]] += 1
                    if word.startswith("in vain"):
                        print(seed, option, word, flush=True)
        print(server, dict(counts), flush=True)


if __name__ == "__main__":
    main()
