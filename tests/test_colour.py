"""Colour images through every command: train, sweep, evaluate, predict, export, draw, and Reader."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image

from handwriting.data.dataset import HandwritingSet, pictures
from handwriting.evaluate import main as evaluate
from handwriting.export import main as export
from handwriting.inference.checkpoints import predict_proba
from handwriting.page.app import PEN, PNG, draw_chart, pen_width, read_drawing
from handwriting.predict import main as predict
from handwriting.reader import Reader

SMALL = ("data=digits", "model.widths=[8,16]", "model.hidden=[32]", "trainer.enable_progress_bar=false")


@pytest.fixture(scope="module", autouse=True)
def in_colour(colour_digits: HandwritingSet) -> Iterator[None]:
    """Let data=digits be in colour; a loader of the tests' own would not be trusted by evaluate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handwriting.data.digits.read_digits", lambda: colour_digits)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[..., int]) -> Path:
    """The folder of a run with a good accuracy."""
    folder = tmp_path_factory.mktemp("colour")
    assert run_in(folder, *SMALL, "optim.lr=0.01", "trainer.max_epochs=4") == 0
    (result,) = folder.glob("outputs/digits/*/result.json")
    return result.parent


@pytest.fixture(scope="module")
def reader(run: Path) -> Reader:
    return Reader.load(run)


def test_a_network_learns_and_its_evaluation_agrees(run: Path, monkeypatch: pytest.MonkeyPatch):
    record = json.loads((run / "result.json").read_text())
    assert record["metrics"]["test/acc"] > 0.8
    monkeypatch.setattr("handwriting.inference.evaluation_report.SHOWN", 8)
    evaluate([str(run), "tta.views=2", "tta.augment=nudge"])
    models = json.loads((run / "evaluation" / "test" / "evaluation.json").read_text())["models"]
    alone, with_views = models.values()
    assert alone["acc"] == pytest.approx(record["metrics"]["test/acc"])
    assert with_views["loss"] != alone["loss"]
    assert (run / "evaluation" / "test" / "mistakes.png").read_bytes().startswith(b"\x89PNG")


def test_image_files_are_predicted_as_they_are(
    run: Path, reader: Reader, colour_digits: HandwritingSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shown = pictures(colour_digits.test.images[:6])
    for number, picture in enumerate(shown):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    figures = ["--figure", str(tmp_path / "a.pdf"), "--steps", str(tmp_path / "b.pdf")]
    with pytest.raises(SystemExit) as stop:
        predict([str(run), f"{tmp_path}/*.png", "--csv", str(tmp_path / "a.csv"), *figures])
    assert stop.value.code == 0
    expected = predict_proba(reader.trained, colour_digits.test.images[:6]).argmax(1).tolist()
    assert pd.read_csv(tmp_path / "a.csv")["prediction"].tolist() == expected
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")


def test_a_reader_takes_colour_from_every_source(reader: Reader, colour_digits: HandwritingSet, tmp_path: Path):
    images = colour_digits.test.images[:8]
    shown = pictures(images)
    expected = predict_proba(reader.trained, images).max(1).values.tolist()
    for number, picture in enumerate(shown):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    files = sorted(tmp_path.iterdir())
    sources: dict[str, Any] = {
        "paths": files,
        "contents": [file.read_bytes() for file in files],
        "images": map(Image.fromarray, shown),
        "transparent images": [Image.fromarray(picture).convert("RGBA") for picture in shown],
        "arrays": shown,
        "floats": shown / 255,
        "tensors": images,
        "one by one": images.split(1),
    }
    for kind, source in sources.items():
        read = reader.read(source, steps=1)
        assert [one.probability for one in read] == pytest.approx(expected, abs=1e-5), kind
        assert read[0].preprocessed is not None
        assert np.array_equal(read[0].preprocessed.image, shown[0])
        assert list(read[0].preprocessed.steps) == ["original", "fitted"]


def test_a_grey_array_is_a_colour_image_of_its_levels(reader: Reader, colour_digits: HandwritingSet):
    grey = pictures(colour_digits.test.images[:4])[..., 0]
    threefold = np.repeat(grey[..., None], 3, axis=3)
    found, expected = (
        [one.probability for one in reader.read(source)] for source in (list(grey) + list(grey / 255), threefold)
    )
    assert found == pytest.approx(expected * 2, abs=1e-6)


@pytest.mark.parametrize("shape", [(4, 5, 6), (5,), (0, 5), (2, 4, 5, 3)])
def test_an_array_of_another_shape_has_an_error(reader: Reader, shape: tuple[int, ...]):
    (prediction,) = reader.read([np.zeros(shape, np.uint8)])
    assert prediction.error == f"An array of shape {shape} cannot be read: (H, W) or (H, W, 3) is expected."


def test_a_photograph_of_another_size_is_fitted_and_a_blank_one_predicted(reader: Reader):
    large, blank = np.zeros((90, 30, 3), np.uint8), np.full((24, 24, 3), 200, np.uint8)
    large[..., 0] = 250
    fitted, same = (one.preprocessed for one in reader.read([large, blank], steps=2))
    assert fitted is not None
    assert same is not None
    assert (fitted.image.shape, fitted.steps["original"].shape) == ((24, 24, 3), (90, 30, 3))
    assert np.array_equal(fitted.image[:, 12], np.tile(np.array([250, 0, 0], np.uint8), (24, 1)))
    assert np.array_equal(same.image, blank)


@pytest.mark.long
def test_the_exported_model_takes_colour(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export([str(run), "--onnx", str(tmp_path / "net.onnx")])
    assert "same predictions as the model on 200 test images" in capsys.readouterr().out
    shape = onnx.load(tmp_path / "net.onnx").graph.input[0].type.tensor_type.shape
    assert [one.dim_value for one in shape.dim][1:] == [3, 24, 24]


def test_a_drawing_is_fitted_and_displayed(reader: Reader):
    content = io.BytesIO()
    Image.new("RGBA", (420, 420), "white").save(content, "PNG")
    likeliest, seen, _ = read_drawing(reader, PNG + base64.b64encode(content.getvalue()).decode())
    assert likeliest is not None
    assert len(likeliest) == 5
    assert "24×24 pixels" in seen
    assert pen_width(reader) == PEN
    assert draw_chart(reader).count("<figure>") == 10


def test_other_data_than_the_models_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], colour_digits: HandwritingSet
):
    grey = [type(one)(one.images[:, :1], one.labels) for one in (colour_digits.train, colour_digits.test)]
    monkeypatch.setattr(
        "handwriting.data.digits.read_digits", lambda: HandwritingSet(*grey, class_names=colour_digits.class_names)
    )
    with pytest.raises(SystemExit) as stop:
        evaluate([str(run)])
    assert stop.value.code == 2
    assert "takes colour images, data=digits has grey ones" in capsys.readouterr().err


@pytest.mark.long
def test_networks_and_baselines_are_compared_with_augmentation(main, tmp_path: Path):
    few = ("data=digits", "data.limit=40", "trainer.max_epochs=1", "name=study")
    assert main("-m", *few, "model=mlp,knn", "augment=shift7", "+data.notebook_form=true").code == 0
    assert main(*few, "model=quick_net", "augment=strong").code == 0
    summary = pd.read_csv(tmp_path / "outputs" / "study" / "summary.csv")
    assert set(summary["model"]) == {"mlp", "knn", "quick_net"}
    assert summary["test/acc"].notna().to_numpy().all()
