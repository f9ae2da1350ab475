"""Plays Docker's client for the runner: a container is a folder, and what runs in it runs here.

`FAKE_DOCKER` names the folder that stands for the engine; a file `down` in it is an engine that does not answer, and
`pulled` keeps what was pulled. Paths below /builds are bent into that folder.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

ENGINE = Path(os.environ.get("FAKE_DOCKER", "/nowhere"))
BUILDS = ENGINE / "builds"
DOWN = "Cannot connect to the Docker daemon at {}. Is the docker daemon running?"
OFFERED = ("alpine:3.20",)


def fail(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(1)


def pull(image: str) -> None:
    if image not in OFFERED:
        fail(f"Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown")
    (ENGINE / "pulled").open("a").write(image + "\n")


def inspect_image(name: str) -> None:
    if name.startswith("registry.gitlab.com/") or name in OFFERED:
        print(json.dumps([{"Id": "sha256:0123", "RepoDigests": [f"{name.partition(':')[0]}@sha256:4567"]}]))
    else:
        fail(f"Error: No such image: {name}")


def create(options: list[str]) -> None:
    container = uuid.uuid4().hex
    folder = ENGINE / container
    folder.mkdir()
    (folder / "options").write_text(json.dumps(options))
    environment = Path(options[options.index("--env-file") + 1])
    (folder / "environment").write_text(environment.read_text())
    print(container)


def start(container: str) -> None:
    folder = ENGINE / container
    script = sys.stdin.read().replace("/builds", str(BUILDS))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    lines = (line.partition("=") for line in (folder / "environment").read_text().splitlines())
    environment |= {name: value.replace("/builds", str(BUILDS)) for name, _, value in lines}
    process = subprocess.Popen(["bash"], stdin=subprocess.PIPE, env=environment, text=True, start_new_session=True)
    (folder / "group").write_text(str(process.pid))
    process.communicate(script)
    (folder / "code").write_text(str(process.returncode if process.returncode >= 0 else 137))


def main(arguments: list[str]) -> None:
    given = {}
    while arguments and arguments[0].startswith("--"):
        given[arguments[0]] = arguments[1]
        arguments = arguments[2:]
    if (ENGINE / "down").exists():
        fail(DOWN.format(given.get("--host")))
    match arguments:
        case ["version", *_]:
            print("20.10.24")
        case ["image", "inspect", name]:
            inspect_image(name)
        case ["pull", "--quiet", image]:
            pull(image)
        case ["volume" | "run" | "import" | "exec", *_]:
            BUILDS.mkdir(exist_ok=True)
            if arguments[0] == "volume":
                (ENGINE / "volumes").open("a").write(" ".join(arguments) + "\n")
        case _:
            use_container(arguments)


def use_container(arguments: list[str]) -> None:
    match arguments:
        case ["create", *options]:
            create(options)
        case ["start", "--attach", "--interactive", container]:
            start(container)
        case ["inspect", "--format", _, container]:
            print((ENGINE / container / "code").read_text())
        case ["kill", container]:
            os.killpg(int((ENGINE / container / "group").read_text()), 9)
        case ["cp", source, "-"]:
            path = source.partition(":")[2].replace("/builds", str(BUILDS))
            sys.exit(subprocess.run(["tar", "-C", path, "-cf", "-", "."], check=False).returncode)
        case ["cp", "-", target]:
            path = target.partition(":")[2].replace("/builds", str(BUILDS))
            sys.exit(subprocess.run(["tar", "-C", path, "-xf", "-"], check=False).returncode)
        case ["rm", *options]:
            shutil.rmtree(ENGINE / options[-1], ignore_errors=True)
        case _:
            fail(f"unknown command {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
