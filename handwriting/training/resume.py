"""State for an exact resume of training: random states and the rows already logged."""

import csv
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger

from handwriting.utils.files import atomic

LAST = "last.ckpt"  # written after each epoch by callbacks.last


def random_states() -> dict[str, Any]:
    """Return the states of all random generators of this process, as plain data and tensors."""
    name, keys, *more = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *more],
        "python": random.getstate(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore the random generators from ``states``."""
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, *more = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *more))
    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))


def last_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the checkpoint of a run's last complete epoch and its content; None if there is no readable one."""
    path = folder / "checkpoints" / LAST
    try:
        return path, torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError):
        return None


def move_checkpoint(source: Path, target: Path) -> bool:
    """Copy the last checkpoint of a run, and its best one, to the folder of another; return whether it is readable.

    The paths that callbacks keep in their states become those of the new folder.
    """
    found = last_checkpoint(source.parents[1])
    if found is None:
        return False
    content, target_folder = found[1], str(target.parent.resolve())
    for state in content["callbacks"].values():
        if isinstance(state, dict) and (old := state.get("dirpath")):
            state |= _with_folder(state, str(old), target_folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    for best in source.parent.glob("best.ckpt"):
        shutil.copy(best, target.with_name(best.name))
    with atomic(target) as file:
        torch.save(content, file)
    return True


def _with_folder(state: Any, old: str, new: str) -> Any:
    """Return the state of a callback in which the paths in a folder are in another one."""
    if isinstance(state, str) and state.startswith(old):
        return new + state.removeprefix(old)
    if isinstance(state, dict):
        return {_with_folder(key, old, new): _with_folder(value, old, new) for key, value in state.items()}
    return state


def rewrite_facts(path: Path, facts: dict[str, Any]) -> None:
    """Replace the facts in a checkpoint, atomically: it is whole at any time, and suffices without other files."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    with atomic(path) as file:
        torch.save(content | {"handwriting": facts}, file)


def restore_rows(logger: CSVLogger, step: int) -> None:
    """Keep the rows of metrics.csv up to a step, which the logger would delete at its start; the test is repeated."""
    path = Path(logger.log_dir) / "metrics.csv"
    rows = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                number = row.get("step") or ""
                kept = {key: value for key, value in row.items() if value}
                if number.isdigit() and int(number) <= step and None not in row and "test/acc" not in kept:
                    rows.append(kept)
    writer = logger.experiment
    writer.metrics[:0] = rows
    logger.save()
