"""logger=mlflow and wandb, and one of the user's, beside TensorBoard and metrics.csv."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from handwriting.runs.config import name_folder

SMALL = ("data=digits", "data.limit=120", "data.batch_size=32", "model.widths=[4,8]", "model.hidden=[16]")
SMALL += ("trainer.max_epochs=2", "trainer.log_every_n_steps=1")
OWN = "+logger={_target_: lightning.pytorch.loggers.CSVLogger, save_dir: own, name: '', version: ''}"  # as a user's


def run_of(folder: Path) -> Path:
    (result,) = folder.glob("outputs/*/*/result.json")
    return result.parent


def test_another_logger_has_the_settings_the_curves_and_the_result(main, tmp_path: Path):
    outcome = main(*SMALL, OWN)
    assert outcome.code == 0, outcome.errors
    settings = yaml.safe_load((tmp_path / "own" / "hparams.yaml").read_text())
    assert (settings["optim"], settings["optim.lr"], settings["model.widths"]) == ("adam", 0.001, [4, 8])
    rows, kept = (pd.read_csv(path / "metrics.csv") for path in (tmp_path / "own", run_of(tmp_path)))
    assert rows["val/acc"].dropna().tolist() == kept["val/acc"].dropna().tolist()
    assert len(rows["train/loss_step"].dropna()) == len(kept["train/loss_step"].dropna()) == 8
    metrics = json.loads((run_of(tmp_path) / "result.json").read_text())["metrics"]
    assert rows["final/val/acc"].dropna().tolist() == [metrics["val/acc"]]
    assert rows["test/acc"].dropna().tolist() == pytest.approx([metrics["test/acc"]])
    assert "final/val/acc" not in kept
    assert list(run_of(tmp_path).glob("events.out.tfevents.*"))


def test_another_logger_has_the_metrics_of_a_classical_baseline(main, tmp_path: Path):
    assert main("data=digits", "data.limit=120", "model=knn", OWN).code == 0
    rows = pd.read_csv(tmp_path / "own" / "metrics.csv")
    metrics = json.loads((run_of(tmp_path) / "result.json").read_text())["metrics"]
    assert rows["test/acc"].tolist() == [metrics["test/acc"]]


@pytest.mark.parametrize("sweep", [(), ("-m",)], ids=["run", "sweep"])
def test_a_finished_run_is_finished_whatever_its_logger(main, tmp_path: Path, sweep: tuple[str, ...]):
    assert main(*sweep, *SMALL, OWN).code == 0
    run = run_of(tmp_path)
    assert "logger" not in run.name
    record = json.loads((run / "result.json").read_text())
    assert "logger" not in record["settings"].keys() | record["choices"].keys()
    for other in ((), ("logger=tensorboard",)):
        assert "Nothing was trained" in main(*sweep, *SMALL, *other).output
    assert run_of(tmp_path) == run


def test_settings_of_a_logger_are_not_in_the_name_of_a_folder():
    assert name_folder(["logger=wandb", "logger.offline=false", "+logger.entity=me", "seed=1"]) == "seed=1"


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_sentence_and_nothing_is_written(main, tmp_path: Path, monkeypatch, name: str):
    monkeypatch.setattr(
        "handwriting.runs.checks.find_spec", lambda module: None if module == name else find_spec(module)
    )
    outcome = main(*SMALL, f"logger={name}")
    assert outcome.code == 2
    assert outcome.errors == f"{name} is not installed: pip install 'handwriting[{name}]', or choose another logger.\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and ".hydra" not in path.parts]


def mlflow_runs(folder: Path) -> list[Any]:
    client = pytest.importorskip("mlflow.tracking").MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")
    (study,) = [one.experiment_id for one in client.search_experiments() if one.name == "study"]
    return client.search_runs([study])


def test_mlflow_has_the_run_in_one_local_file(main, tmp_path: Path):
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    outcome = main("-m", *SMALL, "name=study", "logger=mlflow", "optim=adam,sgd")
    assert (outcome.code, outcome.errors) == (0, "")
    for run in mlflow_runs(tmp_path):
        folder = tmp_path / "outputs" / "study" / run.info.run_name
        metrics = json.loads((folder / "result.json").read_text())["metrics"]
        assert run.info.status == "FINISHED"
        assert run.data.params["optim"] in folder.name
        assert run.data.metrics["final/test/acc"] == pytest.approx(metrics["test/acc"])
        assert pd.read_csv(folder / "metrics.csv")["val/acc"].notna().tolist().count(True) == 2
    assert len(mlflow_runs(tmp_path)) == 2


def test_mlflow_has_a_failed_run_as_failed(main, tmp_path: Path):
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    assert main(*SMALL, "name=study", "logger=mlflow", "optim.lr=1e30").code == 1
    (run,) = mlflow_runs(tmp_path)
    assert run.info.status == "FAILED"


def test_wandb_writes_each_run_into_its_folder_without_network(main, tmp_path: Path):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    assert main("-m", *SMALL, "logger=wandb", "optim=adam,sgd").code == 0
    for optim in ("adam", "sgd"):
        (file,) = tmp_path.glob(f"outputs/digits/*optim={optim}*/wandb/offline-run-*/*.wandb")
        content = file.read_bytes()
        assert f"optim={optim}".encode() in content  # the name of the run
        assert b"final/test/acc" in content
    assert main("-m", *SMALL, "logger=wandb", "optim=adam,sgd", "force=true").code == 0
    assert len(list(tmp_path.glob("outputs/digits/*/wandb/offline-run-*"))) == 2
