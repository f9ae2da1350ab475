"""Stand-in for Docker's client, for the runner: a container is a folder, and its processes run on this machine.

`FAKE_DOCKER` is the folder that stands in for the engine. If it contains a file `down`, the engine does not respond;
`created`, `volumes` and `networks` record the requests for them. Paths below /builds and /cache are replaced with the
folder of the volume that is mounted there, or with the container's own folder.

A job runs it about twenty times, so each command imports only what it needs.
"""

import itertools
import os
import sys

ENGINE = os.environ.get("FAKE_DOCKER", "/nowhere")
TARGETS = r"(?<![\w.])/(?:builds|cache)\b"
DOWN = f"Cannot connect to the Docker daemon at {os.environ.get('DOCKER_HOST')}. Is the docker daemon running?"
OFFERED = "alpine:3.23"


def fail(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)


def read(*path: str) -> str:
    with open(os.path.join(ENGINE, *path)) as file:
        return file.read()


def write(text: str, *path: str, mode: str = "w") -> None:
    with open(os.path.join(ENGINE, *path), mode) as file:
        file.write(text)


def remove(*path: str) -> None:
    import shutil

    shutil.rmtree(os.path.join(ENGINE, *path), ignore_errors=True)


def pull(image: str) -> None:
    if image != OFFERED:
        fail(f"Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown")


def inspect_image(name: str) -> None:
    if name.startswith("registry.gitlab.com/") or name == OFFERED:
        print(f'[{{"Id": "sha256:0123", "RepoDigests": ["{name.partition(":")[0]}@sha256:4567"]}}]')
    else:
        fail(f"Error: No such image: {name}")


def create(options: list[str]) -> None:
    container = os.urandom(16).hex()
    os.mkdir(os.path.join(ENGINE, container))
    write("\0".join(options), container, "options")
    write(ascii(options) + "\n", "created", mode="a")
    print(container)


def start(container: str) -> None:
    import subprocess

    script = translated(container, sys.stdin.read())
    environment = {"PATH": os.environ["PATH"], "HOME": os.path.join(ENGINE, container)}
    process = subprocess.Popen(["bash"], stdin=subprocess.PIPE, env=environment, text=True, start_new_session=True)
    write(str(process.pid), container, "group")
    process.communicate(script)
    sys.exit(process.returncode if process.returncode >= 0 else 137)


def translated(container: str, text: str) -> str:
    """Return the text with paths in the container replaced with paths on this machine."""
    import re

    options = read(container, "options").split("\0")
    mounts = [value.split(":") for option, value in itertools.pairwise(options) if option == "--volume"]
    places = {target: os.path.join(ENGINE, "volume", source) for source, target, *_ in mounts}

    def place(found: re.Match[str]) -> str:
        folder = places.get(found[0], os.path.join(ENGINE, container, found[0].lstrip("/")))
        os.makedirs(folder, exist_ok=True)
        return folder

    return re.sub(TARGETS, place, text)


def record(kind: str, arguments: list[str]) -> None:
    """Record a request for a volume or network; delete the folder of a removed volume."""
    write(" ".join([kind, *arguments]) + "\n", f"{kind}s", mode="a")
    if kind == "volume" and arguments[0] == "rm":
        remove("volume", arguments[-1])


def main(arguments: list[str]) -> None:
    if os.path.exists(os.path.join(ENGINE, "down")):
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
            os.killpg(int(read(container, "group")), 9)
        case ["rm", *options]:
            remove(options[-1])
        case _:
            fail(f"unknown command {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
