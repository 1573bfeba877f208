"""The training of one job, in this process or in others, from its RunSpec to its record. Imports no torch by itself."""

import contextlib
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

from handwriting.runs.record import Run, RunSpec, clear_run, now, write_result
from handwriting.sweeps.subprocesses import count_processes, train_apart
from handwriting.utils.errors import DivergedError, UserError
from handwriting.utils.hardware import freeze_imports, return_memory, slow_precision, use_machine

Say = Callable[[str], None]


def execute(spec: RunSpec, earlier: Run | None, title: str, say: Say) -> Run:
    """Train and return the new run; ``earlier`` is what its folder held, ``title`` what the progress bar says.

    A job on several devices has a process for each. One that was killed before is retried in a separate process:
    whatever killed it must not kill the whole sweep. Raises UserError, JobError or any other exception if the job
    fails; its record then has the reason.
    """
    processes = count_processes(spec.config["trainer"])
    killed = earlier is not None and earlier.was_killed
    if killed:
        say("was killed last time: retried in a separate process")
    if killed or processes > 1:
        return train_apart(spec, earlier, processes, title, say)
    try:
        return train(spec, earlier, title, say)
    finally:
        return_memory()


def train(spec: RunSpec, earlier: Run | None, title: str, say: Say) -> Run:
    """Train in this process, from the last checkpoint if the earlier run can be resumed, and write the record."""
    record = spec.new_record()
    begun = False
    try:
        use_machine()
        from handwriting.training.fit import build_job, train_job  # this and the next: torch and Lightning, seconds
        from handwriting.training.tensorboard import shown_settings

        freeze_imports()
        if note := slow_precision(spec.config["trainer"]["precision"]):
            say(note)
        config, resume = OmegaConf.create(spec.config), _may_resume(spec, earlier)
        objects = build_job(config, spec.settings, spec.folder, title, resume, spec.overrides)
        begun = True
        if objects.last:
            if earlier and "extended" in earlier.record:
                record["extended"] = earlier.record["extended"]
            record["resumed"] = [*(earlier.record.get("resumed", []) if earlier else []), objects.step]
            say(f"resumes after step {objects.step:,}")
        else:
            clear_run(spec.folder)
            if objects.note:
                say(objects.note)
        write_result(spec.folder, {**record, "status": "running"})
        record |= train_job(objects, spec.settings, shown_settings(spec.settings, spec.choices, spec.overrides))
    except BaseException as error:
        record |= _failure(error)
        # Bad input does not overwrite a finished run, nor one that can be resumed without it.
        if begun or earlier is None or not (earlier.status == "done" or _may_resume(spec, earlier)):
            with contextlib.suppress(OSError):  # a full disk: the first error is reported
                write_result(spec.folder, record)
        if isinstance(error, SystemExit):  # Lightning's reaction to Ctrl-C
            raise KeyboardInterrupt from error
        raise
    record |= {"status": "done", "finished": now()}
    write_result(spec.folder, record)
    return Run(spec.folder, record)


def train_rank(spec: RunSpec, earlier: Run | None) -> None:
    """Train as one of several processes of which another writes the record."""
    use_machine()
    from handwriting.training.fit import build_job, train_job

    config = OmegaConf.create(spec.config)
    config.trainer.enable_progress_bar = False
    resume = _may_resume(spec, earlier)
    train_job(build_job(config, spec.settings, spec.folder, "", resume, spec.overrides), spec.settings, {})


def _may_resume(spec: RunSpec, earlier: Run | None) -> bool:
    """Return whether training may resume from the last checkpoint of an earlier run."""
    stopped = earlier is not None and (earlier.status == "interrupted" or earlier.was_killed)
    return stopped and spec.config["resume"] != "restart" and not spec.config["force"]


def _failure(error: BaseException) -> dict[str, Any]:
    """Return the status and the reason of a run that ended with an error."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return {"status": "interrupted", "reason": "interrupted"}
    plain = isinstance(error, (UserError, DivergedError))
    text = str(error) if plain else f"{type(error).__name__}: {error}"
    return {"status": "failed", "reason": " ".join(text.split())}
