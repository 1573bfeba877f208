"""The calibration of a run: fitted on its validation set, kept in its best checkpoint, used wherever it predicts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from handwriting.data import DataModule
from handwriting.data.digits import read_digits
from handwriting.evaluate import main as evaluate
from handwriting.inference.checkpoints import load_trained
from handwriting.models.image_classifier import ImageClassifier
from handwriting.reader import Reader
from handwriting.utils.errors import UserError

SMALL = ("data=digits", "data.limit=300", "trainer.max_epochs=2", "model.widths=[4,8]", "model.hidden=[16]")


def run_in(folder: Path) -> tuple[Path, dict[str, Any]]:
    (result,) = folder.glob("outputs/*/*/result.json")
    return result.parent, json.loads(result.read_text())


def test_a_run_is_calibrated_on_its_validation_set(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert main(*SMALL).code == 0
    run, record = run_in(tmp_path)
    alone = Path(shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt"))  # it suffices
    facts = torch.load(alone, weights_only=True)["handwriting"]
    temperature = facts["temperature"]
    assert temperature == record["temperature"] != 1

    model, data = load_trained(alone).model, DataModule("digits", read_digits, val_fraction=0.2)
    assert isinstance(model, ImageClassifier)
    with torch.inference_mode():
        logits = model(data.val.images).double()
        losses = {factor: F.cross_entropy(logits / temperature / factor, data.val.labels) for factor in (0.98, 1, 1.02)}
        expected = (model(data.test.images) / temperature).softmax(1)
    assert record["images"]["val"] == len(data.val)
    assert losses[1] == min(losses.values())
    torch.testing.assert_close(model.predict_proba(data.test.images), expected)
    assert (expected.argmax(1) == data.test.labels).double().mean() == record["metrics"]["test/acc"]
    assert Reader.load(alone).trained.model.temperature == temperature

    monkeypatch.setattr("handwriting.inference.evaluation_report._figures", lambda *_: {})
    evaluate([str(run)])
    (scores,) = json.loads((run / "evaluation" / "test" / "evaluation.json").read_text())["models"].values()
    assert scores["acc"] == record["metrics"]["test/acc"]
    assert scores["loss_uncalibrated"] == pytest.approx(record["metrics"]["test/loss"], rel=1e-5)
    assert scores["loss"] == pytest.approx(F.nll_loss(expected.log(), data.test.labels).item(), rel=1e-5)
    assert scores["calibration_error"] != scores["calibration_error_uncalibrated"]


def test_without_a_validation_set_nothing_is_calibrated(main, tmp_path: Path):
    assert main(*SMALL, "data.val_fraction=0").code == 0
    run, record = run_in(tmp_path)
    assert record["temperature"] == 1
    assert load_trained(run / "checkpoints" / "best.ckpt").model.temperature == 1


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), "hot"])
def test_an_impossible_temperature_is_refused(digits_run: Path, tmp_path: Path, temperature: object):
    content = torch.load(digits_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["handwriting"]["temperature"] = temperature
    torch.save(content, tmp_path / "changed.ckpt")
    with pytest.raises(UserError, match="does not fit the model"):
        load_trained(tmp_path / "changed.ckpt")


def test_whole_transcripts_are_calibrated(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny = ("data=street_demo", "data.images=120", "data.test_images=30", "data.val_fraction=0.5", "model=digit_heads")
    tiny += ("model.widths=[8,16]", "model.depths=[1,1]", "model.max_length=3", "trainer.max_epochs=1")
    monkeypatch.setattr("handwriting.training.fit.fit_platt", lambda probabilities, right: (0.5, -1.0))
    assert main(*tiny).code == 0
    run, record = run_in(tmp_path)
    assert record["platt"] == [0.5, -1.0]
    model: Any = load_trained(run / "checkpoints" / "best.ckpt").model
    assert model.platt == (0.5, -1.0)
    images = torch.randint(256, (3, 3, *load_trained(run / "checkpoints" / "best.ckpt").image_size), dtype=torch.uint8)
    raw, calibrated = model.transcripts(model.outputs(images)), model.transcribe(images)
    assert [one.labels for one in raw] == [one.labels for one in calibrated]
    odds = torch.tensor([one.probability for one in raw]).log() * 0.5 - 1
    assert [one.probability for one in calibrated] == pytest.approx(odds.sigmoid().tolist(), rel=1e-4)
