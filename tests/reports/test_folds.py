"""Cross-validation and bootstrap from the command line: each image is held out once; the folds become one row."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from handwriting.data.digits import read_digits
from handwriting.inference.checkpoints import load_trained
from handwriting.reports.stats import mean_and_half_width

SMALL = ("data=digits", "data.batch_size=64", "trainer.max_epochs=1", "model.widths=[4,8]", "model.hidden=[16]")


@pytest.mark.long
def test_the_folds_are_combined_into_one_row_and_one_file(main, tmp_path: Path):
    outcome = main("-m", *SMALL, "data.split=kfold", "data.folds=3", "data.fold=0,1,2", "optim=sgd,adam")
    assert outcome.code == 0
    folder = tmp_path / "outputs" / "digits"
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*optim=adam*/result.json"))]
    assert [record["settings"]["data"]["fold"] for record in records] == [0, 1, 2]

    summary = pd.read_csv(folder / "summary.csv").set_index("optim")
    assert summary["seeds"].tolist() == [3, 3]
    accuracies = [record["metrics"]["val/acc"] for record in records]
    numbers = [summary.loc["adam", "val/acc"], summary.loc["adam", "val/acc ±"]]
    assert numbers == pytest.approx(
        mean_and_half_width(accuracies, overlap=0.5)
    )  # held-out images are half of the training images
    differences = pd.read_csv(folder / "differences.csv").iloc[0]
    others = [json.loads(path.read_text()) for path in sorted(folder.glob("*optim=sgd*/result.json"))]
    tested = [np.array([record["metrics"]["test/acc"] for record in side]) for side in (records, others)]
    gaps = tested[0] - tested[1]
    half_width = scipy.stats.t(2).ppf(0.975) * gaps.std(ddof=1) * np.sqrt(1 / 3 + 1 / 2)
    assert differences["±"] == pytest.approx(half_width, rel=1e-3)
    assert "over the seeds and folds, corrected for the training images that folds share" in outcome.output
    assert re.search(r"\| runs .*percentage points.* \(3 runs, p", (folder / "summary.md").read_text(), re.DOTALL)

    table = pd.read_csv(folder / "out_of_fold.csv")
    train = read_digits().train
    for _, rows in table.groupby("configuration"):
        assert sorted(rows["image"]) == list(range(len(train)))
        assert rows["label"].tolist() == train.labels[rows["image"].tolist()].tolist()
        assert rows.filter(regex=r"^p\d").to_numpy().sum(1) == pytest.approx(np.ones(len(rows)), abs=1e-4)
    for record, (_, rows) in zip(records, table[table["configuration"] == "optim=adam"].groupby("fold"), strict=True):
        assert np.mean(np.asarray(rows["label"]) == np.asarray(rows["read"])) == pytest.approx(
            record["metrics"]["val/acc"], abs=1e-6
        )


def test_the_held_out_predictions_of_a_bootstrap_are_those_of_the_saved_model(main, tmp_path: Path):
    assert main(*SMALL, "data.split=bootstrap", "data.fold=3").code == 0
    (run,) = (tmp_path / "outputs" / "digits").glob("*/result.json")
    record = json.loads(run.read_text())
    assert record["images"]["train"] == 1297
    table = pd.read_csv(run.parent / "held_out.csv")
    assert record["images"]["val"] == len(table) < 600
    images = read_digits().train.images[table["image"].tolist()]
    with torch.inference_mode():
        read = load_trained(run.parent / "checkpoints" / "best.ckpt").model(images).argmax(1)
    assert read.tolist() == table["read"].tolist()
    assert not (run.parents[1] / "out_of_fold.csv").exists()  # images of several draws overlap


@pytest.mark.long
def test_no_training_step_uses_the_test_set(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from handwriting.training.module import Classifier

    test = {image.numpy().tobytes() for image in read_digits().test.images}
    train = {image.numpy().tobytes() for image in read_digits().train.images}
    assert not test & train
    seen: set[bytes] = set()
    trained, validated = Classifier.training_step, Classifier.validation_step

    def note(step):
        def noted(model, batch, index):
            seen.update(image.numpy().tobytes() for image in batch[0])
            return step(model, batch, index)

        return noted

    monkeypatch.setattr(Classifier, "training_step", note(trained))
    monkeypatch.setattr(Classifier, "validation_step", note(validated))
    for split in ("holdout", "kfold", "bootstrap"):
        assert main(*SMALL, f"data.split={split}", f"name={split}").code == 0
        assert seen
        assert seen <= train
        seen.clear()
