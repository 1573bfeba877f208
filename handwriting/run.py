"""python -m handwriting.run: one job, or with -m a sweep of them: train, test, result.json, report."""

import contextlib
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.text import Text

from handwriting import __version__
from handwriting.errors import UserError
from handwriting.machine import keep_freed_memory
from handwriting.report import print_report, read_report, write_plots, write_tables
from handwriting.results import RESULT, Run, fingerprint, flatten, plain_settings, read_result, write_result
from handwriting.settings import CONF, check_seed, explain
from handwriting.sweep import PROGRESS, duration

log = logging.getLogger(__name__)
console = Console(highlight=False)
SCORES = {"validation": "val/acc", "test": "test/acc"}


def main() -> None:
    """Run the command line. Exit codes: 0 all done, 1 a job failed, 2 bad input, 130 interrupted."""
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its errors to us
    code = 0
    try:
        job()
    except UserError:
        pass  # said by the job that raised it, and counted below
    except (HydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        code = _complain(explain(error))
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except Exception:
        if not PROGRESS.failures:
            raise
    if PROGRESS.failures and code in (0, 1):
        bad_input = all(isinstance(failure, UserError) for failure in PROGRESS.failures)
        code = 2 if bad_input else 1
    _finish(code)
    sys.exit(code)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> float | None:
    """Train one composed config, or return the result that stands; the value is the monitored metric."""
    PROGRESS.begin_job()
    folder = Path(HydraConfig.get().runtime.output_dir)
    PROGRESS.folders.add(folder.parent)
    try:
        return _train_or_skip(config, folder)
    except (UserError, OmegaConfBaseException) as error:
        reason = error if isinstance(error, UserError) else UserError(explain(error))
        PROGRESS.failures.append(reason)
        log.error(str(reason))
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise reason from error
        _discard(folder)  # a mistyped setting of a single run is no row of the table
        PROGRESS.folders.clear()
    except Exception as error:
        PROGRESS.failures.append(error)
        log.exception("This job failed; please report it if the cause is not yours:")
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
    return None


def _train_or_skip(config: DictConfig, folder: Path) -> float | None:
    settings: dict[str, Any] = plain_settings(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    earlier = read_result(folder)
    if earlier and not config.force:
        _check_same(earlier, settings)
        if earlier.status == "done":
            PROGRESS.skipped += 1
            _say(folder, earlier.metrics, "done already")
            return earlier.metrics.get(config.monitor.metric)
    check_seed(config.seed)
    record = _new_record(settings)
    _clear(folder)
    write_result(folder, {**record, "status": "running"})
    try:
        keep_freed_memory()
        from handwriting.train import shown_settings, train_job  # torch and Lightning: seconds to import

        shown = shown_settings(settings, record["choices"], record["overrides"])
        title = ", ".join(part for part in (PROGRESS.title(), folder.name) if part)
        record |= train_job(config, settings, shown, folder, title)
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        reason = "interrupted" if stopped else " ".join(f"{type(error).__name__}: {error}".split())
        record |= {"status": "interrupted" if stopped else "failed", "reason": reason.removeprefix("UserError: ")}
        write_result(folder, record)
        raise
    write_result(folder, {**record, "status": "done", "finished": _now()})
    _say(folder, record["metrics"], duration(PROGRESS.end_job()))
    write_tables(read_report(folder.parent))
    return record["metrics"].get(config.monitor.metric)


def _check_same(earlier: Run, settings: dict[str, Any]) -> None:
    """Raise UserError when the folder holds a run of other settings, and say which."""
    if earlier.record["fingerprint"] == fingerprint(settings):
        return
    old, new = flatten(earlier.record["settings"]), flatten(settings)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    changes = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys[:4])
    raise UserError(
        f"{earlier.folder} holds a run of other settings ({changes}{', …' if len(keys) > 4 else ''}): "
        "give the new one its own name=…, or replace the old one with force=true."
    )


def _new_record(settings: dict[str, Any]) -> dict[str, Any]:
    hydra_config = HydraConfig.get()
    choices = {group: choice for group, choice in hydra_config.runtime.choices.items() if "hydra" not in group}
    packages = ("torch", "lightning", "torchvision", "numpy")
    return {
        "fingerprint": fingerprint(settings),
        "settings": settings,
        "choices": {group: choice for group, choice in choices.items() if choice},
        "overrides": list(hydra_config.overrides.task),
        "started": _now(),
        "versions": {
            "handwriting": __version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            **{package: version(package) for package in packages},
        },
        "git_revision": _git_revision(),
    }


def _clear(folder: Path) -> None:
    """Remove what an earlier attempt left, so that curves and events are of one run only."""
    for pattern in ("events.out.tfevents.*", "metrics.csv", "hparams.yaml", "checkpoints/*.ckpt"):
        for file in folder.glob(pattern):
            file.unlink()


def _discard(folder: Path) -> None:
    """Remove what a run left that never began, unless an earlier one stands there."""
    run = read_result(folder)
    if run is None or run.status == "failed":
        _clear(folder)
        for file in [folder / RESULT, folder / "run.log", *(folder / ".hydra").glob("*.yaml")]:
            file.unlink(missing_ok=True)
        for inner in (folder / ".hydra", folder / "checkpoints", folder):
            with contextlib.suppress(OSError):  # not there, or something of the user's lies in it
                inner.rmdir()


def _git_revision() -> str | None:
    """Return the commit of the package's source, with + when it was changed; None outside a checkout."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty=+",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _say(folder: Path, metrics: dict[str, float], took: str) -> None:
    place = f"job {PROGRESS.begun} of {PROGRESS.jobs}  " if PROGRESS.jobs > 1 else ""
    scores = [f"{part} {metrics[key]:.2%}" for part, key in SCORES.items() if key in metrics]
    console.print(Text("  ".join([place + folder.name, *scores, took])), soft_wrap=True)


def _complain(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def _finish(code: int) -> None:
    """Write and print the report of every folder that this command touched."""
    for folder in sorted(PROGRESS.folders):
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        try:
            report = read_report(shown)
        except UserError:
            continue  # nothing has come to a result there
        print_report(report, [*write_tables(report), *write_plots(report)], console)
    if PROGRESS.skipped and PROGRESS.skipped == PROGRESS.begun:
        console.print("Nothing was trained: every job was done already (force=true trains anew).")
    if code == 130:
        console.print("Interrupted. The same command goes on: what is done is not trained again.")


if __name__ == "__main__":
    # The module under its own name: a job that is sent to another process must be found there again.
    from handwriting.run import main as main_of_module

    main_of_module()
