"""One attempt at a job in this process: train, test, write the result. Imports no torch itself."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from handwriting.runs.record import Run, clear_run, new_record, now, read_result, write_result
from handwriting.utils.errors import DivergedError, UserError
from handwriting.utils.hardware import pass_over_modules, slow_precision, use_machine

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What a job has to do, as plain data that can be sent to another process."""

    folder: Path
    config: dict[str, Any]  # resolved
    settings: dict[str, Any]  # the config without what NOT_SETTINGS names
    choices: dict[str, str]
    overrides: list[str]
    title: str
    sweeper: str = ""
    asked: str = ""  # the digest of overrides and config files


def was_killed(run: Run) -> bool:
    """Return whether the process of an attempt was killed; call this while holding the job's lock."""
    return run.status == "running" or bool(run.record.get("killed"))


def goes_on(task: Task, earlier: Run | None) -> bool:
    """Return whether a new attempt resumes from the last checkpoint of an earlier one."""
    stopped = earlier is not None and (earlier.status == "interrupted" or was_killed(earlier))
    return stopped and task.config["resume"] == "continue" and not task.config["force"]


def train(task: Task, go_on: bool, say: Say) -> None:
    """Train in this process, from the last checkpoint if ``go_on`` is true and one exists; write the result."""
    earlier = read_result(task.folder)
    record = new_record(task.settings, task.choices, task.overrides) | {"sweeper": task.sweeper, "asked": task.asked}
    begun = False
    try:
        use_machine()
        from handwriting.training.fit import build_job, train_job
        from handwriting.training.tensorboard import (
            shown_settings,  # these import torch and Lightning, which takes seconds
        )

        pass_over_modules()
        if note := slow_precision(task.config["trainer"]["precision"]):
            say(note)
        config = OmegaConf.create(task.config)
        objects = build_job(config, task.settings, task.folder, task.title, go_on, task.overrides)
        begun = True
        if objects.last:
            record["resumed"] = [*(earlier.record.get("resumed", []) if earlier else []), objects.step]
            say(f"resumes after step {objects.step:,}")
        else:
            clear_run(task.folder)
        write_result(task.folder, {**record, "status": "running"})
        record |= train_job(objects, shown_settings(task.settings, task.choices, task.overrides))
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        plain = isinstance(error, (UserError, DivergedError))
        text = str(error) if plain else f"{type(error).__name__}: {error}"
        record["status"] = "interrupted" if interrupted else "failed"
        record["reason"] = "interrupted" if interrupted else " ".join(text.split())
        if begun or not (
            earlier and earlier.status == "done"
        ):  # a finished run is not overwritten because of bad input
            with contextlib.suppress(OSError):  # a full disk: the first error is reported
                write_result(task.folder, record)
        if isinstance(error, SystemExit):  # Lightning's reaction to Ctrl-C
            raise KeyboardInterrupt from error
        raise
    write_result(task.folder, {**record, "status": "done", "finished": now()})


def train_along(task: Task, go_on: bool) -> None:
    """Train as one of several processes of which another writes the result."""
    use_machine()
    from handwriting.training.fit import build_job, train_job

    config = OmegaConf.create(task.config)
    config.trainer.enable_progress_bar = False
    train_job(build_job(config, task.settings, task.folder, "", go_on, task.overrides), {})
