"""predictions.csv: what a run predicted for each image of its test set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from handwriting.data.dataset import texts
from handwriting.data.digits import read_digits
from handwriting.data.street_demo import read_street_demo
from handwriting.evaluate import main as evaluate
from handwriting.inference.checkpoints import load_trained
from handwriting.training.module import TrainingModule

SMALL = ("data=digits", "data.limit=300", "trainer.max_epochs=2", "model.widths=[4,8]", "model.hidden=[16]")
COLUMNS = ["index", "label", "prediction", "label_probability", "prediction_probability"]


def predictions(folder: Path) -> pd.DataFrame:
    text: Any = {"label": str, "prediction": str}
    empty = {"label_probability": ""}
    return pd.read_csv(folder / "predictions.csv", dtype=text, keep_default_na=False, na_values=empty)


def right(table: pd.DataFrame) -> np.ndarray:
    return table["label"].to_numpy() == table["prediction"].to_numpy()


def run_in(folder: Path) -> tuple[Path, dict[str, Any]]:
    (result,) = folder.glob("outputs/*/*/result.json")
    return result.parent, json.loads(result.read_text())


@pytest.mark.parametrize(
    "overrides",
    [SMALL, ("data=digits", "data.limit=300", "model=linear")],
    ids=["network", "baseline"],
)
def test_a_row_for_each_image_agrees_with_the_result(main, tmp_path: Path, overrides: tuple[str, ...]):
    assert main(*overrides).code == 0
    run, record = run_in(tmp_path)
    table, test = predictions(run), read_digits().test
    assert table.columns.tolist() == COLUMNS
    assert table["index"].tolist() == list(range(len(test)))
    assert table["label"].tolist() == [str(label) for label in test.labels.tolist()]
    assert right(table).mean() == record["metrics"]["test/acc"]
    of_label, of_prediction = (table[f"{one}_probability"].to_numpy() for one in ("label", "prediction"))
    assert (of_label <= of_prediction).all()
    assert (of_label == of_prediction)[right(table)].all()


def test_evaluate_writes_the_same_rows_and_those_of_other_splits(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("handwriting.inference.evaluation_report._figures", lambda *_: {})
    assert main(*SMALL).code == 0
    run, record = run_in(tmp_path)
    for split in ("test", "val"):
        evaluate([str(run), f"split={split}"])
    own, again = predictions(run), predictions(run / "evaluation" / "test")
    assert own["prediction"].tolist() == again["prediction"].tolist()
    np.testing.assert_allclose(own["label_probability"], again["label_probability"], rtol=1e-3, atol=1e-6)
    val = predictions(run / "evaluation" / "val")
    assert right(val).mean() == pytest.approx(record["metrics"]["val/acc"], abs=1e-12)


def test_several_characters_are_texts_with_their_leading_zeros(street_runs: dict[str, Path]):
    run = street_runs["seed=0"]
    record, table = json.loads((run / "result.json").read_text()), predictions(run)
    test = read_street_demo((32, 80), 40, 40).test
    assert table["label"].tolist() == texts(test.labels, "0123456789")
    assert right(table).mean() == record["metrics"]["test/acc"]
    assert np.isnan(table["label_probability"].to_numpy()).all()
    model: Any = load_trained(run / "checkpoints" / "best.ckpt").model
    expected = [one.probability for one in model.transcribe(test.images)]
    np.testing.assert_allclose(table["prediction_probability"], expected, rtol=1e-3, atol=1e-6)


def test_a_run_that_restarts_leaves_no_old_predictions(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert main(*SMALL).code == 0
    run, _ = run_in(tmp_path)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingModule, "training_step", stop)
    assert main(*SMALL, "force=true").code == 130
    assert not (run / "predictions.csv").exists()
