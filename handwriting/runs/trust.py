"""Trust: which classes and functions outside this package a checkpoint may name. Imports no torch."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import yaml

from handwriting.runs.config import CONF, groups
from handwriting.runs.source import targets_of, texts_of
from handwriting.utils.errors import UserError

# Libraries with functions that load or run any file: of these only single classes and functions can be trusted.
LIBRARIES = {"torch", "torchvision", "torchmetrics", "lightning", "numpy", "scipy", "pandas", "joblib", "sklearn"}
LIBRARIES |= {"matplotlib", "PIL", "h5py", "hydra", "omegaconf", "yaml", "tensorboard", "pyarrow", "onnx"}
LIBRARIES |= {"transformers"}


@dataclass(frozen=True)
class Trust:
    """What the user trusts beside this package: by dotted name, such as ``mynet`` or ``mynet.MyNet``, or by folder.

    A name stands for itself and for everything in it; a folder of config files for every ``_target_`` in them. Nothing
    of Python's standard library can be trusted, as no part of a model is there.
    """

    names: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, things: Iterable[object]) -> "Trust":
        """Return the trust in modules, classes and functions, or their dotted names. Raises UserError for others."""
        return cls(tuple(map(_name_of, things)))

    def check(self, config: Any, group: str, path: Path) -> None:
        """Raise UserError unless every ``_target_`` in a checkpoint's config is in this group of conf/, or trusted.

        Otherwise a file could name any function in Python, and instantiation would call it. Nor may a text have an
        interpolation: it could become a ``_target_`` later, and the settings of a checkpoint are resolved.
        """
        if any("${" in text for text in texts_of(config)):
            raise UserError(f"{path} has an interpolation, ${{…}}, in its settings of {group}: it is not loaded.")
        known = _targets_in(CONF / group)
        places = [folder / group for folder in self.folders for group in groups()]  # not all below: --config-dir .
        own = {target for place in places for target in _targets_in(place)}
        for target in targets_of(config):
            if target not in known:
                self._check_own(target, group, target in own, path)

    def _check_own(self, target: str, group: str, in_folder: bool, path: Path) -> None:
        module = target.partition(".")[0]
        if module == "handwriting":
            raise UserError(f"{path} names {target}, which is in no file of conf/{group}: it is not loaded.")
        if module in sys.stdlib_module_names:
            raise UserError(f"{path} names {target} of Python's standard library: it is not loaded.")
        if not in_folder and not self._covers(target):
            raise UserError(
                f"{path} names {target}, which is not of this package: it is not loaded. If you trust that code, add "
                f"--trust {target if module in LIBRARIES else module}, or --config-dir with the folder of its config "
                f"file; in Python, trust=[{target.rpartition('.')[2]}]."
            )
        try:
            found = resolve_name(target)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"{path} names {target}, which cannot be imported ({error}): run the command in the folder of "
                f"{module}.py, or install it."
            ) from error
        origin = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        if origin.partition(".")[0] != module and not self._covers(origin):  # such as mynet.os.system
            raise UserError(f"{path} names {target}, which is {origin} and not of {module}: it is not loaded.")

    def _covers(self, target: str) -> bool:
        inside = target.partition(".")[0] not in LIBRARIES
        return any(target == name or (inside and target.startswith(f"{name}.")) for name in self.names)


NO_TRUST = Trust()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust`` and ``--config-dir`` to a command."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="NAME",
        help="a module of your own, such as mynet, whose networks and data sets a checkpoint may name",
    )
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own config files, as in training; trusts what they name"
    )


def trust_of(options: argparse.Namespace) -> Trust:
    """Return the trust that the options of a command give. Raises UserError if the folder does not exist."""
    folder = options.config_dir
    if folder and not folder.is_dir():
        raise UserError(f"--config-dir {folder} is not a folder.")
    return Trust(Trust.of(options.trust).names, (folder.resolve(),) if folder else ())


def _name_of(thing: object) -> str:
    if isinstance(thing, ModuleType):
        name = thing.__name__
    elif isinstance(thing, str):
        name = thing
    else:
        name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"trust={name} must be a module, class or function, or its name, such as mynet or mynet.MyNet.")
    if _is_of_python(name):
        raise UserError(f"trust={name} is of Python's standard library, which has no part of a model: leave it out.")
    if name in LIBRARIES:
        raise UserError(f"trust={name} is a whole library: name the class that the checkpoint names, as torch.nn.ReLU.")
    return name


def _is_of_python(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def _targets_in(folder: Path) -> set[str]:
    """Return every ``_target_`` in the config files of a folder; {} if it does not exist."""
    found: set[str] = set()
    for file in folder.rglob("*.yaml"):
        try:
            found |= set(targets_of(yaml.safe_load(file.read_text(encoding="utf-8"))))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is not a config file in YAML: {' '.join(str(error).split())}.") from error
    return found
