"""What a search with optuna looks for: the better direction of the metric that is monitored."""

from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir

from handwriting.runs.config import CONF
from handwriting.sweeps.search import prepare_study


def test_a_study_of_each_metric_looks_in_its_direction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for metric in ("val/acc", "val/loss"):  # one after the other in the same folder
        overrides = ["experiment=search", "hydra/sweeper=optuna", f"monitor.metric={metric}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides, return_hydra_config=True)
        assert prepare_study(config) == config.hydra.sweeper.n_trials
        study = optuna.load_study(
            study_name=config.hydra.sweeper.study_name, storage=f"sqlite:///{tmp_path}/outputs/search/study.db"
        )
        assert study.direction.name.lower() == config.hydra.sweeper.direction
        assert study.direction.name == ("MAXIMIZE" if metric == "val/acc" else "MINIMIZE")
