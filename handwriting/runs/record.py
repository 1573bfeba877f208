"""result.json, the record of a run: fingerprint, status, metrics; reading and writing. Imports no torch."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handwriting import __version__
from handwriting.utils.errors import UserError, folders_beside
from handwriting.utils.files import write_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RESULT = "result.json"
PREDICTIONS = "predictions.csv"  # for the test set
HELD_OUT = "held_out.csv"  # predictions for the held-out images of a fold or bootstrap draw
ALWAYS = {"status": str, "fingerprint": str, "settings": dict, "choices": dict}  # in every result.json, and their types
WHEN_DONE = {"metrics": dict, "epochs": (int, float), "seconds": (int, float), "parameters": (int, float)}
# Settings without influence on the results of a run.
NOT_SETTINGS = {
    "name",
    "force",
    "resume",
    "fail_fast",
    "search",
    "report",
    "race",
    "logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
}
# Settings that came later, with the values that leave them unused: these are not in a record, so that older ones equal
# new ones.
ADDED: dict[str, Any] = {"init_from": None, "freeze": [], "stop": {}}
ADDED_CHOICES = {"stop": "none"}  # of groups that came later
INIT_DIGEST = "init_digest"  # of the content of init_from's checkpoint, beside the settings

# Old to new prefixes of the dotted names in older records and checkpoints.
RENAMED = {
    "handwriting.averaging.": "handwriting.training.callbacks.",
    "handwriting.baselines.": "handwriting.models.baselines.",
    "handwriting.losses.": "handwriting.training.losses.",
    "handwriting.optimizers.": "handwriting.training.optim.",
    "handwriting.snapshots.CosineCycles": "handwriting.training.optim.CosineCycles",
    "handwriting.snapshots.Snapshots": "handwriting.training.callbacks.Snapshots",
}


@dataclass(frozen=True)
class RunSpec:
    """What a run is to be, as plain data: it goes from the command to the record, and to other processes."""

    folder: Path
    config: dict[str, Any]  # resolved
    overrides: list[str]  # of the command line
    choices: dict[str, str]  # of the config groups
    sweeper: str = ""  # hydra/sweeper
    request: str = ""  # the digest of overrides and config files

    @property
    def settings(self) -> dict[str, Any]:
        """Return the config without what changes only where a run lies or how it looks."""
        return plain_settings(self.config)

    def new_record(self) -> dict[str, Any]:
        """Return the record of the run before it begins: settings, overrides, time and versions."""
        packages = ("torch", "lightning", "torchvision", "numpy")
        settings = self.settings
        return {
            "fingerprint": fingerprint(settings),
            "settings": settings,
            "choices": self.choices,
            "overrides": self.overrides,
            "started": now(),
            "versions": {
                "handwriting": __version__,
                "python": ".".join(map(str, sys.version_info[:3])),
                **{package: version(package) for package in packages},
            },
            "git_revision": _git_revision(),
            "sweeper": self.sweeper,
            "asked": self.request,  # the name of older records
        }


@dataclass(frozen=True)
class Run:
    """A run: its folder and the content of its result.json."""

    folder: Path
    record: dict[str, Any]

    @property
    def status(self) -> str:
        """Return running, done, failed or interrupted."""
        return self.record["status"]

    @property
    def was_killed(self) -> bool:
        """Return whether its process was killed; call this while holding the job's lock."""
        return self.status == "running" or bool(self.record.get("killed"))

    @property
    def overrides(self) -> list[str]:
        """Return the overrides of its command line, such as ``optim=adam``."""
        return self.record.get("overrides", [])

    @cached_property
    def overridden(self) -> set[str]:
        """Return the keys of its overrides: settings and groups."""
        return {setting_of(override) for override in self.overrides}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return every setting by its dotted name, and each group's choice by the group's name."""
        return {**ADDED_CHOICES, **flatten(self.record["settings"]), **self.record["choices"]}

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Return the final metrics; accuracies are fractions."""
        return {name: value for name, value in self.record.get("metrics", {}).items() if value is not None}

    def curves(self) -> "pd.DataFrame":
        """Return metrics.csv: rows by step and by epoch, a column for each metric, NaN where it was not logged."""
        import pandas as pd

        try:
            return pd.read_csv(self.folder / "metrics.csv")
        except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError):
            return pd.DataFrame()

    @cached_property
    def tested(self) -> "tuple[str, np.ndarray] | None":
        """Return a digest of the test labels and which images were predicted right, bool (images,); None if unknown."""
        import pandas as pd

        try:
            table = pd.read_csv(self.folder / PREDICTIONS, usecols=["label", "prediction"], dtype=str, na_filter=False)
        except (OSError, ValueError):  # also what pandas raises for a file without these columns
            return None
        labels = hashlib.sha256("\n".join(table["label"]).encode()).hexdigest()
        return labels, (table["label"] == table["prediction"]).to_numpy()

    def held_out(self) -> "pd.DataFrame | None":
        """Return held_out.csv: index, label, prediction and probabilities of each held-out image; None without it."""
        import pandas as pd

        try:
            return pd.read_csv(self.folder / HELD_OUT, dtype={"label_text": str, "read_text": str})  # 007 stays 007
        except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError):
            return None


def plain_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved config without what NOT_SETTINGS names, without output folders and what ADDED leaves unused."""
    config = {key: value for key, value in config.items() if key not in ADDED or value != ADDED[key]}

    def keep(node: Any, prefix: str) -> Any:
        if not isinstance(node, dict):
            return node
        return {
            key: keep(value, f"{prefix}{key}.")
            for key, value in node.items()
            if has_influence(f"{prefix}{key}") and key != "dirpath"
        }

    return keep(config, "")


def with_absolute_paths(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with an absolute ``data.path`` and ``init_from``, if these exist relative to a folder."""

    def absolute(node: dict[str, Any], key: str) -> dict[str, Any]:
        path = node.get(key)
        if not isinstance(path, str) or not (found := folder / Path(path).expanduser()).exists():
            return node
        return node | {key: os.path.abspath(found)}  # noqa: PTH100 keeps links

    if isinstance(settings.get("data"), dict):
        settings = settings | {"data": absolute(settings["data"], "path")}
    return absolute(settings, "init_from")


def rename(settings: Any) -> Any:
    """Return settings, as plain data, in which every ``_target_`` has its present name, as RENAMED lists them."""
    if isinstance(settings, dict):
        return {
            key: _renamed(value) if key == "_target_" and isinstance(value, str) else rename(value)
            for key, value in settings.items()
        }
    return [rename(value) for value in settings] if isinstance(settings, list) else settings


def _renamed(target: str) -> str:
    for old, new in RENAMED.items():
        if target.startswith(old):
            return new + target.removeprefix(old)
    return target


def setting_of(override: str) -> str:
    """Return which setting an override is about: ``optim.lr`` of ``+optim.lr=0.1``."""
    return override.split("=")[0].lstrip("+~")


def has_influence(setting: str) -> bool:
    """Return whether a setting can change the results of a run: it is in no node of NOT_SETTINGS."""
    parts = setting.split(".")
    return not any(".".join(parts[:length]) in NOT_SETTINGS for length in range(1, len(parts) + 1))


def fingerprint(settings: dict[str, Any]) -> str:
    """Return a hash that is equal for equal settings, whatever their order."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"optim.lr": 0.1, …} for {"optim": {"lr": 0.1}, …}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def write_result(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's result.json; numbers that are not finite become null."""
    write_text(folder / RESULT, json.dumps(_finite(record), indent=1, ensure_ascii=False, default=str) + "\n")


def read_result(folder: Path) -> Run | None:
    """Return the run of a folder, or None if there is no valid result.json."""
    return run if isinstance(run := _load(folder), Run) else None


def read_folder(folder: Path) -> list[Run]:
    """Return the runs directly in a folder, by name; of equal ones the finished or latest. UserError if none."""
    return read_runs(folder)[0]


def read_runs(folder: Path) -> tuple[list[Run], dict[Path, str]]:
    """Return what read_folder does, and what is wrong with each result.json that is no run, by its folder."""
    if not folder.is_dir():
        hint = folders_beside(folder) or " Give a folder of runs, such as outputs/mnist."
        raise UserError(f"{folder} is not a folder.{hint}")
    found = {entry: _load(entry) for entry in sorted(folder.iterdir())}
    damaged = {entry: problem for entry, problem in found.items() if isinstance(problem, str)}
    runs = [run for run in reversed(found.values()) if isinstance(run, Run)]
    runs.sort(key=lambda run: (run.status == "done", str(run.record.get("started"))))
    by_print = {run.record["fingerprint"]: run for run in runs}  # the last of equal ones
    if not by_print and damaged:
        raise UserError(f"{folder} has no readable run: {(first := min(damaged)) / RESULT} {damaged[first]}.")
    if not by_print:
        inner = sorted({result.parent.parent for result in folder.glob(f"*/*/{RESULT}")})
        where = f" Did you mean {inner[0]}?" if inner else ""
        raise UserError(f"{folder} has no runs (no folder in it has a {RESULT}).{where}")
    return sorted(by_print.values(), key=lambda run: run.folder.name), damaged


def check_same(earlier: Run, settings: dict[str, Any]) -> None:
    """Raise UserError if the folder has a run with other settings that did not fail, and name them."""
    if earlier.status == "failed" or earlier.record["fingerprint"] == fingerprint(settings):
        return
    before = with_absolute_paths(earlier.record["settings"], Path.cwd())  # older records have the path as it was given
    if fingerprint(before) == fingerprint(settings):
        return
    old, new = flatten(before), flatten(settings)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    changes = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys[:4])
    raise UserError(
        f"{earlier.folder} has a run with other settings ({changes}{', …' if len(keys) > 4 else ''}): "
        "give the new one its own name=…, or replace the old one with force=true."
    )


def changed_code(earlier: Run, settings: dict[str, Any]) -> str:
    """Return the names of the user's modules whose source changed since a run with otherwise equal settings, or ''."""
    old, new = earlier.record["settings"], json.loads(json.dumps(settings, default=str))
    before, after = old.get("code", {}), new.get("code", {})
    if before == after or old | {"code": None} != new | {"code": None}:
        return ""
    return ", ".join(name for name in sorted({*before, *after}) if before.get(name) != after.get(name))


def clear_run(folder: Path) -> None:
    """Remove the files of an earlier attempt, including its evaluation, so that all files are of one run."""
    for pattern in ("events.out.tfevents.*", "*.csv", "*.png", "*-profile.txt", "hparams.yaml", "checkpoints/*.ckpt"):
        for file in folder.glob(pattern):
            file.unlink()
    for inner in ("evaluation", "wandb"):
        shutil.rmtree(folder / inner, ignore_errors=True)


def discard_run(folder: Path) -> None:
    """Remove the files of a run that never began, unless there is an earlier one."""
    run = read_result(folder)
    if run is None or run.status == "failed":
        clear_run(folder)
        for file in [folder / RESULT, folder / "run.log", *(folder / ".hydra").glob("*.yaml")]:
            file.unlink(missing_ok=True)
        for inner in (folder / ".hydra", folder / "checkpoints", folder):
            with contextlib.suppress(OSError):  # not there, or something of the user's lies in it
                inner.rmdir()


def chance_warning(run: Run) -> str:
    """Return a sentence if a run's test accuracy is at chance level, else ''.

    Chance level is the fraction of the most common class in the test set, plus two standard errors.
    """
    accuracy, chance = run.metrics.get("test/acc"), run.record.get("chance")
    images = run.record.get("images", {}).get("test")
    if accuracy is None or not chance or not images:
        return ""
    if accuracy > chance + 2 * math.sqrt(chance * (1 - chance) / images):
        return ""
    classes = run.record.get("classes")
    trained_by_steps = "estimator" not in run.record["settings"]["model"]  # a classical baseline has one
    tip = "try a lower optim.lr" if trained_by_steps else "check the data"
    return f"{accuracy:.1%} with {classes} classes is chance level; {tip}.".replace("%", " %")


def now() -> str:
    """Return the current time in UTC, in the format of result.json."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _load(folder: Path) -> Run | str | None:
    """Return the run of a folder, or what is wrong with its result.json, or None if there is none."""
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        record = None
    if isinstance(record, dict):
        needed = ALWAYS | (WHEN_DONE if record.get("status") == "done" else {})
        if all(isinstance(record.get(key), kind) for key, kind in needed.items()):
            if (settings := rename(record["settings"])) != record["settings"]:
                record |= {"settings": settings, "fingerprint": fingerprint(settings)}
            return Run(folder, record)
    return "is damaged; the same command retrains it"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _git_revision() -> str | None:
    """Return the commit of the package's source, with + if it was changed; None outside a git repository."""
    describe = ["describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
