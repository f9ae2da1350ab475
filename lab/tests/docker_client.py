"""Stand-in for Docker's client, for the runner: a container is a folder, and its processes run on this machine.

`FAKE_DOCKER` is the folder that stands in for the engine. If it contains a file `down`, the engine does not respond;
`created`, `volumes` and `networks` record the requests for them. Paths below /builds and /cache are replaced with the
folder of the volume that is mounted there, or with the container's own folder.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from itertools import pairwise
from pathlib import Path

ENGINE = Path(os.environ.get("FAKE_DOCKER", "/nowhere"))
TARGETS = re.compile(r"(?<![\w.])/(?:builds|cache)\b")
DOWN = f"Cannot connect to the Docker daemon at {os.environ.get('DOCKER_HOST')}. Is the docker daemon running?"
OFFERED = "alpine:3.23"


def fail(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)


def pull(image: str) -> None:
    if image != OFFERED:
        fail(f"Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown")


def inspect_image(name: str) -> None:
    if name.startswith("registry.gitlab.com/") or name == OFFERED:
        print(json.dumps([{"Id": "sha256:0123", "RepoDigests": [f"{name.partition(':')[0]}@sha256:4567"]}]))
    else:
        fail(f"Error: No such image: {name}")


def create(options: list[str]) -> None:
    container = uuid.uuid4().hex
    (ENGINE / container).mkdir()
    (ENGINE / container / "options").write_text(json.dumps(options))
    with (ENGINE / "created").open("a") as created:
        created.write(json.dumps(options) + "\n")
    print(container)


def start(container: str) -> None:
    folder = ENGINE / container
    script = translated(container, sys.stdin.read())
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    process = subprocess.Popen(["bash"], stdin=subprocess.PIPE, env=environment, text=True, start_new_session=True)
    (folder / "group").write_text(str(process.pid))
    process.communicate(script)
    sys.exit(process.returncode if process.returncode >= 0 else 137)


def translated(container: str, text: str) -> str:
    """Return the text with paths in the container replaced with paths on this machine."""
    options = json.loads((ENGINE / container / "options").read_text())
    mounts = [value.split(":") for option, value in pairwise(options) if option == "--volume"]
    places = {target: ENGINE / "volume" / source for source, target, *_ in mounts}

    def place(found: re.Match[str]) -> str:
        folder = places.get(found[0], ENGINE / container / found[0].lstrip("/"))
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    return TARGETS.sub(place, text)


def record(kind: str, arguments: list[str]) -> None:
    """Record a request for a volume or network; delete the folder of a removed volume."""
    with (ENGINE / f"{kind}s").open("a") as asked:
        asked.write(" ".join([kind, *arguments]) + "\n")
    if kind == "volume" and arguments[0] == "rm":
        shutil.rmtree(ENGINE / "volume" / arguments[-1], ignore_errors=True)


def main(arguments: list[str]) -> None:
    if (ENGINE / "down").exists():
        fail(DOWN)
    match arguments:
        case ["version"]:
            print("20.10.24")
        case ["image", "inspect", name]:
            inspect_image(name)
        case ["--config", _, "pull", "--quiet", image]:
            pull(image)
        case ["volume" | "network" as kind, *options]:
            record(kind, options)
        case ["create", *options]:
            create(options)
        case ["start", "--attach", "--interactive", container]:
            start(container)
        case ["kill", container]:
            os.killpg(int((ENGINE / container / "group").read_text()), 9)
        case ["rm", *options]:
            shutil.rmtree(ENGINE / options[-1], ignore_errors=True)
        case _:
            fail(f"unknown command {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
