"""resume=extend: a finished run of fewer epochs is taken up, and trained for the rest of them."""

import shutil
from pathlib import Path
from typing import Any

from handwriting.runs.checks import RUN_CALLBACKS, need_for_all_epochs
from handwriting.runs.record import Run, RunSpec, check_same, clear_run, flatten, read_result, write_result
from handwriting.utils.errors import UserError

EPOCHS = "trainer.max_epochs"
LAST = Path("checkpoints", "last.ckpt")


def take_up(spec: RunSpec, earlier: Run | None) -> Run:
    """Make the folder of ``spec`` that of an interrupted run with the epochs of a finished one; return that run.

    The finished run has the same settings, but fewer epochs. It lies in the folder itself, if the epochs are not in
    its name, or in a folder beside it: then its last checkpoint and metrics are copied, and it stays as it is. Of
    several, the longest is taken. Raises UserError if there is none, or if the settings depend on the length.
    """
    _check(spec.config)
    found = _find(spec, earlier)
    if found is None:
        raise UserError(
            f"resume=extend found no finished run with these settings and fewer than {EPOCHS}="
            f"{spec.config['trainer']['max_epochs']} epochs in {spec.folder.parent}: train that first, or leave "
            "resume=extend out."
        )
    if found.folder != spec.folder:
        if earlier:
            check_same(earlier, spec.settings)
        clear_run(spec.folder)
        _copy_checkpoint(found.folder / LAST, spec.folder / LAST)
        shutil.copy(found.folder / "metrics.csv", spec.folder / "metrics.csv")
    extended = [*found.record.get("extended", []), found.record["settings"]["trainer"]["max_epochs"]]
    reason = f"extends the run of {extended[-1]} epochs in {found.folder.name}"
    record = {**spec.new_record(), "status": "interrupted", "reason": reason, "extended": extended}
    write_result(spec.folder, record)
    return Run(spec.folder, record)


def _check(config: dict[str, Any]) -> None:
    """Raise UserError for settings with which an extended run would not equal an uninterrupted one.

    Early stopping is none: its state is in the last checkpoint, and a run that it has ended is not trained further.
    """
    others = [name for name, one in config["callbacks"].items() if one and name not in RUN_CALLBACKS]
    needs = need_for_all_epochs(config)
    if others and not needs:
        needs = f"callbacks.{others[0]}, which may depend on {EPOCHS}"
    if needs:
        raise UserError(f"resume=extend cannot extend a run with {needs}: leave resume=extend out.")


def _find(spec: RunSpec, earlier: Run | None) -> Run | None:
    """Return the longest finished run that can be extended; one in the folder itself comes first."""
    beside = [run for path in sorted(spec.folder.parent.iterdir()) if (run := read_result(path))]
    own = [run for run in (earlier,) if run]
    fitting = [run for run in own if _extends(spec, run)] or [run for run in beside if _extends(spec, run)]
    return max(fitting, key=lambda run: run.record["settings"]["trainer"]["max_epochs"], default=None)


def _extends(spec: RunSpec, run: Run) -> bool:
    old, new = flatten(run.record["settings"]), flatten(spec.settings)
    epochs, more = old.pop(EPOCHS, None), new.pop(EPOCHS)
    shorter = isinstance(epochs, int) and isinstance(more, int) and epochs < more
    return run.status == "done" and shorter and old == new and (run.folder / LAST).is_file()


def _copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a last checkpoint and the best one beside it; the paths in it become those of the new folder.

    Otherwise Lightning would forget the best metric so far. Raises UserError if it cannot be read.
    """
    from handwriting.training.resume import move_checkpoint  # torch

    if not move_checkpoint(source, target):
        raise UserError(f"{source} is damaged: the run cannot be extended; train it for all epochs.")
