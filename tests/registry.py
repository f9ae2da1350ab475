"""Example content of a registry."""

from tools.registry_server import Registry, some_bytes


def fill(registry: Registry) -> dict[str, str]:
    """Push all kinds of content to a running registry. Returns the digests by name."""
    base, other = some_bytes("base", 20_000), some_bytes("other")
    made = {
        "app": registry.push_image("group/app", "1.0", base, some_bytes("app")),
        "shared": registry.push_image("group/app/nested/deep", "latest", base, other),
        "elsewhere": registry.push_image("another", "v1", base, some_bytes("another"), oci=True),
    }
    registry.push_image("group/app", "latest", base, some_bytes("app"), name="group/app:1.0")
    made["amd64"] = registry.push_image("multi", "", base, some_bytes("amd64"), oci=True, name="amd64")
    made["arm64"] = registry.push_image("multi", "", base, some_bytes("arm64"), oci=True, name="arm64")
    made["attestation"] = registry.push_image("multi", "", some_bytes("attested"), oci=True, name="attestation")
    platforms = {
        made["amd64"]: "linux/amd64",
        made["arm64"]: "linux/arm64",
        made["attestation"]: "attestation",
    }
    made["index"] = registry.push_index("multi", "latest", platforms)
    made["artifact"] = registry.push_artifact("artifacts/reports", "first", b"a report")
    for number in range(4):
        made[f"round {number}"] = registry.push_image(
            "often", "nightly", base, some_bytes(f"round {number}"), name=f"{number}"
        )
    made["former index"] = registry.push_index("often", "multi", {made["round 1"]: "linux/amd64"})
    registry.push_index("often", "multi", {made["round 2"]: "linux/amd64"})
    made["deleted"] = registry.push_image("group/gone", "old", some_bytes("gone"), other)
    registry.push_image("group/gone", "new", other)
    registry.delete_manifest("group/gone", made["deleted"])
    registry.push_blob("group/gone", some_bytes("pushed without a manifest"))
    registry.abort_upload("group/app", some_bytes("aborted"))
    return made
