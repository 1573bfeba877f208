"""Classical baselines: predictions as in scikit-learn, and the same files and tables as a network."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from handwriting.compare import main as compare
from handwriting.data.dataset import LabelledImages
from handwriting.data.digits import read_digits
from handwriting.models.baselines import BINS, Baseline, histograms
from handwriting.utils.errors import UserError

DIGITS = read_digits()
QUICK = ("trainer.max_epochs=1", "trainer.enable_progress_bar=false")
PIXELS = DIGITS.test.images.flatten(1).numpy() / 255


def records(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/digits/*/result.json")}


def test_a_baseline_predicts_like_its_estimator(main, tmp_path: Path):
    assert main("data=digits", "model=knn", "data.val_fraction=0").code == 0
    (record,) = records(tmp_path).values()
    theirs = KNeighborsClassifier(3, weights="distance")
    theirs.fit(DIGITS.train.images.flatten(1).numpy() / 255, DIGITS.train.labels.numpy())
    assert record["device"] == "cpu, 1 thread"
    assert record["chance"] == DIGITS.test.labels.bincount().max().item() / 500
    assert record["metrics"]["test/acc"] == pytest.approx(theirs.score(PIXELS, DIGITS.test.labels.numpy()))
    (run,) = (tmp_path / "outputs" / "digits").glob("*model=knn*")
    table = pd.read_csv(run / "per_class.csv")
    assert table["right"].sum() == round(500 * record["metrics"]["test/acc"])


@pytest.mark.long
def test_baselines_and_a_net_share_splits_table_and_plots(main, tmp_path: Path):
    outcome = main("-m", "data=digits", "data.limit=500", "model=net,knn,linear,svm,forest", *QUICK)
    assert outcome.code == 0
    compare(["outputs/digits"])  # with its plots, which the fixture leaves out
    runs = records(tmp_path)
    assert len({json.dumps(record["images"]) for record in runs.values()}) == 1
    assert all(record["metrics"]["val/acc"] > 0.8 for name, record in runs.items() if "model=net" not in name)
    summary = pd.read_csv(tmp_path / "outputs" / "digits" / "summary.csv")
    assert set(summary["model"]) == {"net", "knn", "linear", "svm", "forest"}
    assert min(summary["parameters"].tolist()) > 1000
    assert (tmp_path / "outputs" / "digits" / "curves.png").stat().st_size > 10_000


@pytest.mark.long
def test_a_forest_of_several_seeds_is_one_row_and_is_paired_with_a_net(main, tmp_path: Path):
    arguments = ("-m", "data=digits", "data.limit=200", "model=net,forest", "seed=0,1", "trainer.max_epochs=1")
    outcome = main(*arguments)
    assert outcome.code == 0
    summary = pd.read_csv(tmp_path / "outputs" / "digits" / "summary.csv")
    assert dict(zip(summary["model"], summary["seeds"], strict=True)) == {"net": 2, "forest": 2}
    assert not [column for column in summary if column.startswith("model.")]
    differences = pd.read_csv(tmp_path / "outputs" / "digits" / "differences.csv")
    assert differences[["better", "worse", "seeds"]].to_numpy().tolist() == [["model=forest", "model=net", 2]]


@pytest.mark.long
def test_a_linear_model_is_better_on_gradients_than_on_pixels(main, tmp_path: Path):
    assert main("-m", "data=digits", "data.limit=500", "model=linear", "model.features=pixels,hog").code == 0
    accuracies = {
        record["settings"]["model"]["features"]: record["metrics"]["test/acc"] for record in records(tmp_path).values()
    }
    assert accuracies["hog"] > accuracies["pixels"]


def test_the_direction_of_a_stroke_is_in_its_histogram():
    images = np.zeros((3, 8, 8), np.uint8)
    images[0, :, 4:] = 255  # an upright edge: its gradient lies flat, at 0
    images[1, 4:, :] = 255  # a flat edge: upright, at half of half a turn
    found = histograms(images).reshape(3, 4, BINS)
    assert found.shape == (3, 4, BINS)
    assert set(found[0].sum(0).argsort()[-2:]) == {0, BINS - 1}  # between the first and the last direction
    assert found[1].sum(0).argmax() == BINS // 2
    assert not found[2].any()
    assert np.allclose(
        histograms(np.rot90(images[:1], axes=(1, 2))).reshape(4, BINS).sum(0), found[1].sum(0), atol=1e-5
    )
    assert (np.sqrt((found[:2] ** 2).sum((1, 2))) <= 1 + 1e-5).all()


def test_without_probabilities_the_decision_values_order_the_classes():
    few = DIGITS.train[torch.arange(300)]
    baseline = Baseline(10, (28, 28), lambda: SVC(break_ties=True))
    baseline.fit(few)
    probabilities = baseline.predict_proba(DIGITS.test.images)
    assert torch.allclose(probabilities.sum(1), torch.ones(500))
    theirs = SVC(break_ties=True).fit(few.images.flatten(1).numpy() / 255, few.labels.numpy())
    assert probabilities.argmax(1).tolist() == theirs.predict(PIXELS).tolist()


def test_a_class_without_training_images_is_never_predicted():
    few = DIGITS.train[(DIGITS.train.labels < 2).nonzero()[:, 0]]
    for estimator in (KNeighborsClassifier, SVC):  # of two classes, SVC has one decision value
        baseline = Baseline(10, (28, 28), estimator)
        baseline.fit(few)
        probabilities = baseline.predict_proba(DIGITS.test.images)
        assert probabilities.shape == (500, 10)
        assert not probabilities[:, 2:].any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.features=sift"], "model.features=sift must be pixels or hog."),
        (["model.estimator.n_neighbors=0"], "n_neighbors"),
        (["model.estimator.neighbours=3"], "neighbours"),
        (["augment=affine"], "sees each image once: choose augment=none, shift7 or shift11."),
    ],
)
def test_bad_input_is_one_sentence(main, settings: list[str], said: str):
    outcome = main("data=digits", "model=knn", *settings)
    assert outcome.code == 2
    assert said in outcome.errors
    assert len(outcome.errors.splitlines()) == 1


def test_hog_needs_room():
    with pytest.raises(UserError, match="needs images of at least 8×8"):
        Baseline(10, (7, 9), KNeighborsClassifier, "hog")


def test_histograms_of_colour_images_are_those_of_their_grey_levels():
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (60, 16, 16, 3), np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])
    labels, found = torch.arange(60) % 3, []
    for images, channels in ((colour.transpose(0, 3, 1, 2), 3), (grey[:, None], 1)):
        baseline = Baseline(3, (16, 16), SVC, "hog", channels)
        baseline.fit(LabelledImages(torch.from_numpy(images[:40].copy()), labels[:40]))
        found.append(baseline.predict_proba(torch.from_numpy(images[40:].copy())))
    torch.testing.assert_close(*found, rtol=0, atol=0.01)
