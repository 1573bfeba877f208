"""The source code of components from outside this package, as digests: changed code is a changed setting.

Imports none of that code.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

FRAMEWORKS = {"handwriting", "torch", "torchvision", "lightning", "sklearn"}  # their versions are in the record
INSTALLED = {"site-packages", "dist-packages"}  # folders of packages


def digests_of_code(config: Any) -> dict[str, str]:
    """Return a digest of the source of each module outside this package that a config names, by the module's name.

    A package counts with all of its files. A single file counts with those beside it that it imports; one that is
    installed counts alone.
    """
    modules = {target.partition(".")[0] for target in targets_of(config)}
    own = sorted(modules - FRAMEWORKS - sys.stdlib_module_names)
    return {module: digest for module in own if (digest := _digest(module))}


def targets_of(config: Any) -> Iterator[str]:
    """Yield every ``_target_`` in a config."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield str(config["_target_"])
        for value in config.values():
            yield from targets_of(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from targets_of(value)


def texts_of(config: Any) -> Iterator[str]:
    """Yield every text in a config, keys too."""
    if isinstance(config, str):
        yield config
    elif isinstance(config, Mapping):
        for key, value in config.items():
            yield str(key)
            yield from texts_of(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from texts_of(value)


def _digest(module: str) -> str:
    digest = hashlib.sha256()
    for file in sorted(set(_files_of(module, set()))):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _files_of(module: str, seen: set[str]) -> Iterable[Path]:
    """Return the files of a module, and of the modules beside it that it imports; ``seen`` are those done before."""
    if module in seen:
        return []
    seen.add(module)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []  # the one that builds the component says so
    if spec is None:
        return []
    if spec.submodule_search_locations:  # a package, also one without __init__.py
        return [file for place in spec.submodule_search_locations for file in Path(place).rglob("*.py")]
    if spec.origin is None:
        return []
    file = Path(spec.origin)
    if not INSTALLED.isdisjoint(file.parts):
        return [file]
    beside = {*(one.stem for one in file.parent.glob("*.py")), *(one.parent.name for one in file.parent.glob("*/*.py"))}
    own = (_imports(file) & beside) - FRAMEWORKS - sys.stdlib_module_names
    return [file, *(found for name in own for found in _files_of(name, seen))]


def _imports(file: Path) -> set[str]:
    """Return the top-level names of the modules that a file imports; none if it is not Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
