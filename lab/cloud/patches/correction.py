"""What marks a correction of moto."""

from collections import defaultdict
from collections.abc import Callable
from types import ModuleType

_corrections: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)


def correction(function: Callable[[], None]) -> Callable[[], None]:
    """Mark a function that puts a correction into moto's classes. Its docstring says what AWS does, and what moto."""
    _corrections[function.__module__].append(function)
    return function


def corrections(module: ModuleType) -> list[Callable[[], None]]:
    """Those of a module, in the order in which they are written."""
    return _corrections[module.__name__]
