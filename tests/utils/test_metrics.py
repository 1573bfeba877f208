import io
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.text import CharErrorRate

from handwriting.data import LabelledImages
from handwriting.training import fit
from handwriting.training.module import Classifier
from handwriting.utils.metrics import (
    accuracy_by,
    agreement,
    confused_pairs,
    confusion,
    per_character,
    per_class,
    score,
    sequence_confusion,
    sequence_scores,
)


def test_a_class_has_its_correct_images_and_its_confusions():
    counts = np.array([[3, 1, 0, 2], [0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 3]])
    table = per_class(counts, ["a 1", "a 2", "b 1", "b 2"], ["\u10d0", "", "x", "y"])
    assert list(table["images"]) == [6, 4, 0, 4]
    assert list(table["right"]) == [3, 4, 0, 3]
    assert table["acc"].tolist()[:2] == [0.5, 1.0]
    assert np.isnan(table["acc"][2])
    assert list(table["mistaken for"]) == ["b 2 y (2), a 2 (1)", "", "", "a 1 \u10d0 (1)"]
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)), keep_default_na=False)
    assert list(read["glyph"]) == ["\u10d0", "", "x", "y"]


def test_classes_without_glyphs_are_called_by_their_names():
    table = per_class(np.array([[1, 1], [0, 2]]), ["0", "1"], ())
    assert list(table["mistaken for"]) == ["1 (1)", ""]


@pytest.mark.parametrize("classes", [3, 12])
@pytest.mark.parametrize("absent", [False, True])
def test_scores_are_those_of_scikit_learn(classes: int, absent: bool):
    random = np.random.default_rng(classes)
    probabilities = random.dirichlet(np.ones(classes) * 0.3, 200).astype(np.float32)
    labels = random.integers(0, classes - absent, 200)
    if absent:  # nor is it ever read
        probabilities[:, -1] = 0
        probabilities /= probabilities.sum(1, keepdims=True)
    read = probabilities.argmax(1)
    scores = score(torch.from_numpy(probabilities), torch.from_numpy(labels))
    seen = list(range(classes - absent))
    assert scores["acc"] == pytest.approx(metrics.accuracy_score(labels, read))
    for name, function in (
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("f1", metrics.f1_score),
    ):
        expected = function(labels, read, labels=seen, average="macro", zero_division=0)  # type: ignore[arg-type]
        assert scores[name] == pytest.approx(expected, abs=1e-6)
    clipped = np.clip(probabilities[np.arange(200), labels].astype(float), 1e-12, 1)
    assert scores["loss"] == pytest.approx(-np.log(clipped).mean())
    sure = probabilities.max(1)
    bins = np.minimum((sure * 15).astype(int), 14)
    error = sum(
        abs((read == labels)[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    )
    assert scores["calibration_error"] == pytest.approx(error, abs=1e-3)
    if classes > 10:
        assert scores["top5"] == pytest.approx(
            metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(classes))
        )
    counts = confusion(torch.from_numpy(read), torch.from_numpy(labels), classes)
    assert np.array_equal(counts, metrics.confusion_matrix(labels, read, labels=range(classes)))
    table = per_class(counts, [str(label) for label in range(classes)], ()).iloc[seen]
    of_each = metrics.precision_recall_fscore_support(labels, read, labels=seen, zero_division=np.nan)  # type: ignore[arg-type]
    for name, values in zip(("precision", "acc", "f1"), of_each, strict=False):
        assert table[name].to_numpy() == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize("classes", [6, 10, 11])
def test_a_run_and_its_evaluation_have_the_top_5_of_the_same_numbers_of_classes(classes: int):
    net = Classifier(torch.nn.Identity(), partial(torch.optim.SGD, lr=0.1), num_classes=classes)
    probabilities, labels = torch.eye(classes), torch.arange(classes)
    assert ("top5" in score(probabilities, labels)) == (5 in net.tally["test"].top) == (classes > 10)


def test_a_run_and_its_evaluation_count_a_probability_of_zero_the_same():
    probabilities, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.25, 0.75]]), torch.tensor([0, 1, 1])
    net = Classifier(torch.nn.Identity(), partial(torch.optim.SGD, lr=0.1), num_classes=2)
    net.log_proba = lambda *_: probabilities.log()  # type: ignore[method-assign]
    test = LabelledImages(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), labels)
    job = SimpleNamespace(model=net, data=SimpleNamespace(test=test), views=None)
    expected = -np.log([1.0, 1e-12, 0.75]).mean()
    assert score(probabilities, labels)["loss"] == pytest.approx(expected)
    assert fit._predict_views(job)["test_tta/loss"] == pytest.approx(expected)  # type: ignore[arg-type]


def test_pairs_are_counted_in_both_directions():
    counts = np.array([[9, 2, 0], [3, 9, 0], [1, 0, 9]])
    assert confused_pairs(counts) == [(0, 1, 5), (0, 2, 1)]
    assert confused_pairs(counts, most=1) == [(0, 1, 5)]
    assert confused_pairs(np.eye(3, dtype=int)) == []


def test_images_are_counted_by_the_number_of_correct_models():
    first, second, every = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    assert agreement([first, second]) == [2, 1, 1]
    assert agreement([first, second, every]) == [0, 2, 1, 1]
    assert agreement([every, every]) == [0, 0, 4]


def test_scores_of_sequences_are_those_of_torchmetrics_and_of_a_count_by_hand():
    random = np.random.default_rng(0)
    true = [tuple(random.integers(0, 3, random.integers(1, 5)).tolist()) for _ in range(300)]
    predicted = [one if random.random() < 0.6 else tuple(random.integers(0, 3, random.integers(0, 6))) for one in true]
    sure = random.random(300)
    scores = sequence_scores(predicted, true, sure.tolist())
    right = np.array([one == other for one, other in zip(predicted, true, strict=True)])
    assert scores["acc"] == pytest.approx(right.mean())
    texts = [["".join(map(str, one)) for one in some] for some in (predicted, true)]
    assert scores["char_acc"] == pytest.approx(1 - CharErrorRate()(*texts).item(), abs=1e-6)
    lengths = np.array([[len(one) for one in some] for some in (predicted, true)])
    assert scores["length_acc"] == pytest.approx((lengths[0] == lengths[1]).mean())
    for length in (1, 2, 3, 4):
        assert scores[f"acc_length_{length}"] == pytest.approx(right[lengths[1] == length].mean())
    bins = (sure * 15).astype(int)
    error = sum(abs(right[bins == one].mean() - sure[bins == one].mean()) * (bins == one).mean() for one in set(bins))
    assert scores["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_accuracy_is_listed_by_groups_of_equal_size_with_wilson_s_interval():
    random = np.random.default_rng(0)
    values, right = random.normal(size=600), random.random(600) < 0.8
    table = accuracy_by(right, values, most=5)
    assert table["images"].tolist() == [120] * 5
    order = np.argsort(values)
    for number, row in table.iterrows():
        inside = order[120 * number : 120 * (number + 1)]  # type: ignore[operator]
        assert (row["from"], row["to"]) == (values[inside].min(), values[inside].max())
        assert row["acc"] == right[inside].mean()
        interval = proportion_confint(right[inside].sum(), 120, method="wilson")
        assert (row["acc_low"], row["acc_high"]) == pytest.approx(interval)


def test_accuracy_is_listed_by_each_value_if_there_are_few():
    table = accuracy_by(np.array([True, False, True, True]), np.array([2, 1, 2, 5]))
    assert table[["from", "to", "images", "right"]].to_numpy().tolist() == [[1, 1, 1, 0], [2, 2, 2, 2], [5, 5, 1, 1]]


def test_missing_characters_and_those_too_many_are_none():
    counts = sequence_confusion([(0, 1), (1,), (1, 1)], [(0, 1), (0, 1), (1,)], 2)
    table = per_character(counts, ["a", "b"], ["x", "y"])
    assert table["name"].tolist() == ["a", "b", "none"]
    assert table["glyph"].tolist() == ["x", "y", ""]
    assert table["images"].tolist() == [2, 3, 1]
    assert table["mistaken for"].tolist() == ["none (1)", "", "b y (1)"]
    assert table["acc"].tolist()[:2] == [0.5, 1]
    assert table.loc[2, ["acc", "precision", "f1"]].isna().all()
