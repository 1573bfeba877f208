"""The checkpoints that can be selected on the drawing page, by their names."""

import sys
from pathlib import Path

from handwriting.inference.checkpoints import BEST, check_file, find_checkpoints, load_trained
from handwriting.runs.trust import NO_TRUST, Trust
from handwriting.utils.errors import UserError

OUTPUTS = Path("outputs")


def gather(place: Path | None, trust: Trust = NO_TRUST, outputs: Path = OUTPUTS) -> dict[str, Path]:
    """Return the checkpoints by name: those of ``place``, then those of the folders of runs in outputs/.

    The first one is known to load. Damaged ones are omitted with a message on stderr. Raises UserError if none is left,
    or if ``place`` is a single checkpoint that does not load.
    """
    named = find_checkpoints(place) if place else []
    found = list(named)
    studies = {result.parents[1] for depth in ("*/*", "*/*/*") for result in outputs.glob(f"{depth}/result.json")}
    for study in sorted(studies):
        try:
            found += find_checkpoints(study)
        except (UserError, OSError):  # no finished run, or no permission
            continue
    if not found:
        raise UserError(f"{outputs}/ has no finished run: train one (python -m handwriting.run), or give a checkpoint.")
    unique = {path.resolve(): path for path in reversed(found)}
    whole = _leave_out_damaged(sorted(unique.values(), key=found.index), named if len(named) == 1 else [], trust)
    return {_name(path, outputs): path for path in whole}


def _leave_out_damaged(found: list[Path], needed: list[Path], trust: Trust) -> list[Path]:
    """Return the checkpoints whose files are intact, the first of which loads; print which are omitted and why."""
    whole: list[Path] = []
    reasons: list[UserError] = []
    for path in found:
        try:
            check_file(path) if whole else load_trained(path, trust)
            whole.append(path)
        except UserError as error:
            if path in needed:
                raise
            reasons.append(error)
    if not whole:
        raise reasons[0]
    for reason in reasons:
        print(f"{reason} It is omitted.", file=sys.stderr)
    return whole


def _name(path: Path, outputs: Path) -> str:
    """Return mnist/optim=adam for the best checkpoint of that run in outputs/, else the path of the file."""
    run = path.parent.parent if path.match(BEST) else path
    try:
        return str(run.resolve().relative_to(outputs.resolve()))
    except ValueError:
        return str(run)
