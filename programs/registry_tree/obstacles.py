"""What aborts the registry's own garbage collection, or makes it skip a repository, although no image is damaged."""

import os
import re

from .store import Repository, Store

STOPS = "stops a collection"

_COMPONENT = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN_COMPONENT = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_NAME = re.compile(rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*/)?{_COMPONENT}(?:/{_COMPONENT})*")
"""NameRegexp of reference/regexp.go, but without a port in the domain: the file system driver rejects colons."""
_MAX_NAME = 255
_PATH_PART = re.compile("[A-Za-z0-9._-]+")
"""A component of PathRegexp of registry/storage/driver/storagedriver.go."""


def why_no_name(name: str) -> str:
    """Why a collection rejects this repository name; "" if it is valid."""
    if len(name) > _MAX_NAME:
        return f"has a repository name of more than {_MAX_NAME} characters"
    return "" if _NAME.fullmatch(name) else "does not have a valid repository name (invalid reference format)"


def check_repository(store: Store, repository: Repository, *, untagged: bool) -> None:
    """Report what would abort a collection in this repository."""
    why = why_no_name(repository.name)
    if why and os.path.lexists(repository.layers):
        store.obstacles.report(STOPS, repository.path, f"{why}; move it out of the registry's folder, or rename it")
    if not untagged:
        return
    tags, files = store.entries(repository.tags)
    for name in files:
        store.obstacles.report(STOPS, os.path.join(repository.tags, name), "is a file among the tags; remove it")
    for name in tags:
        if not _PATH_PART.fullmatch(name):
            store.obstacles.report(STOPS, os.path.join(repository.tags, name), "is not a valid tag name; remove it")
