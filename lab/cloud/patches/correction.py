"""Marks and lists the corrections of moto."""

from collections import defaultdict
from collections.abc import Callable
from types import ModuleType

_corrections: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)


def correction(function: Callable[[], None]) -> Callable[[], None]:
    """Mark a function that applies a correction to moto's classes. Its docstring describes what AWS and moto do."""
    _corrections[function.__module__].append(function)
    return function


def corrections(module: ModuleType) -> list[Callable[[], None]]:
    """Return the corrections of a module, in source order."""
    return _corrections[module.__name__]
