"""Search with optuna: ranges that depend on the optimizer, and a study that resumes. Imports no torch."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from handwriting.utils.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import Trial


def suggest(config: DictConfig, trial: "Trial") -> None:
    """Sample the settings that ``search`` lists for the trial's optimizer: ``{adam: {optim.lr: {low, high, log}}}``.

    Settings that the command line fixes are not sampled. Optuna's sweeper calls this for each trial.
    """
    if not config.get("search"):
        return
    ranges: dict[str, Any] = OmegaConf.to_container(config.search)  # type: ignore[assignment]
    optimizer = trial.params.get("optim", trial.user_attrs.get("optim"))
    for setting, bounds in ranges.get(str(optimizer), {}).items():
        if setting not in trial.user_attrs and setting not in trial.params:
            trial.suggest_float(setting, float(bounds["low"]), float(bounds["high"]), log=bool(bounds.get("log")))


def prepare_study(config: DictConfig) -> int:
    """Complete the settings of optuna's ``hydra.sweeper``, and return how many trials the study still needs.

    It optimises ``monitor``. The study is stored in the folder of its runs, and the same command resumes it: trials
    that were running in a killed search are queued again, so that their runs can resume.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("hydra/sweeper=optuna needs an extra: pip install 'handwriting[sweep]'.") from None
    logging.getLogger("optuna").setLevel(logging.WARNING)
    sweeper, folder = config.hydra.sweeper, Path(config.hydra.sweep.dir) / config.name
    direction = "maximize" if config.monitor.mode == "max" else "minimize"
    # A study keeps its direction, so a study of another metric needs its own name.
    monitored = "" if config.monitor.metric == "val/acc" else f" by {config.monitor.metric}"
    filled = {
        "direction": direction,
        "storage": sweeper.storage or f"sqlite:///{folder / 'study.db'}",
        "study_name": sweeper.study_name or config.name + monitored,
        "custom_search_space": sweeper.custom_search_space or "handwriting.sweeps.search.suggest",
        "max_failure_rate": 1.0,  # a failed job is only a row of the report
    }
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=filled["storage"], study_name=filled["study_name"], direction=direction, load_if_exists=True
    )
    for trial in study.get_trials():
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.enqueue_trial(trial.params)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    complete = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.get_trials())
    filled["n_trials"] = max(sweeper.n_trials - complete, 0)
    with read_write(config), open_dict(config):
        sweeper.update(filled)
    return filled["n_trials"]
