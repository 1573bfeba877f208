"""Evaluation of runs on several characters in an image from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from handwriting.data.augment import Augmentation
from handwriting.data.dataset import HandwritingSet, characters_of, texts
from handwriting.data.street_demo import read_street_demo
from handwriting.evaluate import main as evaluate
from handwriting.inference.checkpoints import load_trained
from handwriting.models.digit_heads import most_probable
from handwriting.models.sequence_model import SequenceRecognizer, vote
from handwriting.runs.config import compose_group
from handwriting.runs.instantiate import build


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def data() -> HandwritingSet:
    """The images of the runs."""
    return read_street_demo((32, 80), 40, 40)


def recognizer(run: Path) -> SequenceRecognizer:
    model = load_trained(run / "checkpoints" / "best.ckpt").model
    assert isinstance(model, SequenceRecognizer)
    return model


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures, which take most of the time."""
    monkeypatch.setattr("handwriting.inference.evaluation_report._figures", lambda *_: {})


@pytest.mark.parametrize("part", ["detector", "seed=1"])
def test_the_scores_are_those_of_the_run(part: str, street_runs: dict[str, Path], no_figures: None, tmp_path: Path):
    run = street_runs[part]
    evaluate([str(run), f"out={tmp_path}"])
    record, result = evaluation(tmp_path), json.loads((run / "result.json").read_text())
    (scores,) = record["models"].values()
    assert record["images"] == 40
    assert 0 < scores["char_acc"] < 1
    expected = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
    assert expected.pop("test/loss") > 0
    assert {
        f"test/{name}": value for name, value in scores.items() if "calibration_error" not in name
    } == pytest.approx(expected, abs=1e-6)
    assert ("map" in scores) == ("detector" in part)
    assert 0 <= scores["calibration_error"] <= 1
    assert 0 < record["speed"]["one_seconds"] < record["speed"]["all_seconds"]
    assert record["speed"]["batch"] == 40


def test_characters_are_counted_and_accuracy_is_listed_by_length_height_and_contrast(
    street_runs: dict[str, Path],
    data: HandwritingSet,
    no_figures: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    run = street_runs["detector"]
    evaluate([str(run), f"out={tmp_path}"])
    record, table = evaluation(tmp_path), pd.read_csv(tmp_path / "per_class.csv", dtype={"name": str})
    true = characters_of(data.test.labels)
    assert table["name"].tolist() == [*"0123456789", "none"]
    assert table["images"].tolist()[:10] == [sum(one.count(digit) for one in true) for digit in range(10)]
    assert pd.read_csv(run / "per_class.csv").equals(pd.read_csv(tmp_path / "per_class.csv"))  # of the training
    by = record["accuracy_by"]
    assert list(by) == ["length", "height", "contrast"]
    lengths = np.bincount([len(one) for one in true])
    assert {row["from"]: row["images"] for row in by["length"]} == dict(enumerate(lengths[1:], 1))
    (scores,) = record["models"].values()
    for rows in by.values():
        assert sum(row["images"] for row in rows) == 40
        assert sum(row["right"] for row in rows) == round(40 * scores["acc"])
    printed = capsys.readouterr().out
    assert f"{scores['char_acc']:.2%}" in printed
    assert f"{scores['map']:.2%}" in printed


def test_figures_are_drawn_with_boxes_and_texts(
    street_runs: dict[str, Path], data: HandwritingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[tuple[Any, ...]] = []

    def draw(*arguments: Any) -> Figure:
        drawn.append(arguments)
        return Figure()

    monkeypatch.setattr("handwriting.inference.transcription.draw_predictions", draw)
    run, test = street_runs["detector"], data.test
    evaluate([str(run), f"out={tmp_path}", "format=pdf"])
    for name in ("mistakes", "samples", "confusion", "accuracy_by"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    transcripts, numbers = recognizer(run).transcribe(test.images), texts(test.labels, "0123456789")
    for images, true, predicted, sure, title, boxes in drawn:
        places = [next(n for n in range(40) if np.array_equal(test.images[n].permute(1, 2, 0), one)) for one in images]
        assert list(true) == [numbers[n] for n in places]
        assert list(predicted) == ["".join(map(str, transcripts[n].labels)) or "none" for n in places]
        assert list(boxes) == [transcripts[n].boxes for n in places]
        if "highest confidence first" in title:
            assert all(one != other for one, other in zip(true, predicted, strict=True))
            assert list(sure) == sorted(sure, reverse=True)
    assert len(drawn) == 2
    assert any(boxes for *_, boxes in drawn for boxes in boxes)


def test_without_mistakes_their_figure_is_empty(street_runs: dict[str, Path], tmp_path: Path):
    evaluate([str(street_runs["detector"]), f"out={tmp_path}", "split=train", "dpi=30"])
    (scores,) = evaluation(tmp_path)["models"].values()
    assert scores["acc"] == 1
    assert (tmp_path / "mistakes.png").read_bytes().startswith(b"\x89PNG")


def test_networks_of_one_class_are_merged_and_others_vote(
    street_runs: dict[str, Path], data: HandwritingSet, no_figures: None, tmp_path: Path
):
    heads = [street_runs[f"seed={seed}"] for seed in (0, 1)]
    evaluate([*map(str, heads), f"out={tmp_path / 'heads'}", "split=train"])
    record = evaluation(tmp_path / "heads")
    assert list(record["models"]) == ["seed=0", "seed=1", "mean of the 2"]
    none, one, both = record["correct_by"]
    assert none + one + both == 40
    assert one + 2 * both == sum(40 * record["models"][f"seed={seed}"]["acc"] for seed in (0, 1))
    nets = [recognizer(run) for run in heads]
    with torch.inference_mode():
        mean = torch.stack([net(data.train.images)["positions"].softmax(2) for net in nets]).mean(0)
    assert record["models"]["mean of the 2"]["acc"] == right(most_probable(mean), data.train.labels) > 0.5
    evaluate([*map(str, street_runs.values()), f"out={tmp_path / 'all'}", "ensemble=mean", "split=train"])
    models = evaluation(tmp_path / "all")["models"]
    assert list(models)[-1] == "vote of the 3"
    assert len(models) == 4
    voted = vote([recognizer(run).transcribe(data.train.images) for run in street_runs.values()])
    assert models["vote of the 3"]["acc"] == right(voted, data.train.labels)
    evaluate([*map(str, heads), f"out={tmp_path / 'vote'}", "ensemble=vote"])
    assert list(evaluation(tmp_path / "vote")["models"])[-1] == "vote of the 2"


def right(transcripts: Any, labels: torch.Tensor) -> float:
    true = characters_of(labels)
    return sum(one.labels == other for one, other in zip(transcripts, true, strict=True)) / len(true)


def test_views_are_merged_and_those_of_all_networks_together(
    street_runs: dict[str, Path], data: HandwritingSet, no_figures: None, tmp_path: Path
):
    heads, train = [street_runs[f"seed={seed}"] for seed in (0, 1)], data.train
    evaluate([*map(str, heads), f"out={tmp_path}", "split=train", "tta.views=3", "tta.augment=scene_nudge"])
    models = evaluation(tmp_path)["models"]
    assert list(models)[3:] == ["seed=0, 3 views", "seed=1, 3 views", "mean of the 2, 3 views"]
    nets = [recognizer(run) for run in heads]
    augmentation: Augmentation = build("augment", compose_group("augment", "scene_nudge"))
    with torch.inference_mode():
        views = [view for view, _ in augmentation.scene_views(train.images, 3)]
        each = torch.stack([torch.stack([net(view)["positions"].softmax(2) for view in views]) for net in nets])
    assert models["seed=1, 3 views"]["acc"] == right(most_probable(each[1].mean(0)), train.labels)
    assert models["mean of the 2, 3 views"]["acc"] == right(most_probable(each.mean((0, 1))), train.labels)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ensemble=logits"], "ensemble=logits is for models of single characters: choose mean or vote."),
        (["ensemble=stack"], "ensemble=stack is for models of single characters: choose mean or vote."),
        (["data=digits"], "is for several characters in an image, and data=digits has one character in an image"),
        (["tta.views=3"], "tta.views=3 is more than the 1 that this augmentation makes"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    street_runs: dict[str, Path],
    no_figures: None,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as stop:
        evaluate([*map(str, street_runs.values()), *arguments])
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_a_model_of_single_characters_does_not_fit_images_with_several(
    digits_run: Path, capsys: pytest.CaptureFixture[str], no_figures: None
):
    with pytest.raises(SystemExit) as stop:
        evaluate([str(digits_run), "data=street_demo", "data.images=60", "data.test_images=40"])
    assert stop.value.code == 2
    assert "has several characters in an image: they do not fit." in capsys.readouterr().err


@pytest.mark.long
def test_held_out_predictions_are_texts_that_keep_their_zeros(main: Callable[..., Any], tmp_path: Path):
    few = ("data=street_demo", "data.images=60", "data.test_images=10", "trainer.max_epochs=1")
    heads = ("model=digit_heads", "model.widths=[8]", "model.depths=[1]")
    assert main("-m", *few, *heads, "data.split=kfold", "data.folds=2", "data.fold=0,1").code == 0
    study = tmp_path / "outputs" / "street_demo"
    table = pd.read_csv(study / "out_of_fold.csv", dtype=str).fillna("")
    train = read_street_demo((32, 80), 60, 10).train
    numbers = ["".join(map(str, one)) for one in characters_of(train.labels)]
    assert sorted(table["image"].astype(int)) == list(range(60))
    assert [numbers[int(image)] for image in table["image"]] == table["label_text"].tolist()
    assert any(number.startswith("0") and len(number) > 1 for number in numbers)
    for run in study.glob("*data.fold=1*"):
        fold = table[table["fold"] == "1"]
        transcripts = recognizer(run).transcribe(train.images[fold["image"].astype(int).tolist()])
        assert ["".join(map(str, one.labels)) for one in transcripts] == fold["read_text"].tolist()
        assert [one.probability for one in transcripts] == pytest.approx(
            fold["probability"].astype(float).tolist(), rel=1e-4
        )
