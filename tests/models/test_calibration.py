"""Calibration agrees with other implementations of the same fits, and changes no prediction."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from handwriting.models.calibration import HOTTEST, apply_platt, fit_platt, fit_temperature
from handwriting.models.image_classifier import ImageClassifier


def drawn(true_temperature: float, classes: int = 5, images: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are too large by a factor, and labels drawn from the right probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(images, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * true_temperature, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_that_of_a_general_minimisation(temperature: float):
    logits, labels = drawn(temperature)
    numbers, rows = logits.double().numpy(), np.arange(len(labels))

    def loss(inverse: np.ndarray) -> float:
        scaled = numbers * inverse[0]
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[rows, labels.numpy()]))

    expected = 1 / minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x[0]
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.1)


def test_of_two_classes_the_inverse_temperature_is_the_slope_of_a_logistic_regression():
    logits, labels = drawn(2.0, classes=2)
    gap = (logits[:, 1] - logits[:, 0]).double().numpy()[:, None]
    regression = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(gap, labels.numpy())
    assert 1 / fit_temperature(logits, labels) == pytest.approx(np.asarray(regression.coef_).item(), rel=1e-4)


@pytest.mark.parametrize("logits", [torch.zeros(0, 3), 5 * torch.eye(3), torch.full((3, 3), torch.nan)])
def test_where_nothing_can_be_estimated_the_temperature_is_1(logits: torch.Tensor):
    assert fit_temperature(logits, torch.arange(len(logits))) == 1


def test_the_temperature_is_bounded():
    wrong = 100 * torch.eye(3).roll(1, 0)
    assert fit_temperature(wrong, torch.arange(3)) == pytest.approx(HOTTEST, rel=1e-3)


def test_a_temperature_changes_no_prediction_and_its_views_are_calibrated_together():
    torch.manual_seed(0)
    model = ImageClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)))
    images = torch.randint(256, (700, 1, 4, 4), dtype=torch.uint8)
    with torch.inference_mode():
        several = torch.stack([model(images), model(images.flip(3))]).softmax(2)
    before = [model.predict_proba(images), model.predict_proba(images, lambda batch: [batch, batch.flip(3)])]
    torch.testing.assert_close(before[0], several[0])
    torch.testing.assert_close(before[1], several.mean(0))
    model.temperature = 2.5
    after = [model.predict_proba(images), model.predict_proba(images, lambda batch: [batch, batch.flip(3)])]
    for raw, calibrated in zip(before, after, strict=True):
        powers = raw ** (1 / 2.5)
        torch.testing.assert_close(calibrated, powers / powers.sum(1, keepdim=True))
        assert torch.equal(raw.argmax(1), calibrated.argmax(1))


def test_the_logistic_map_of_transcripts_is_that_of_a_logistic_regression_with_platt_s_targets():
    draws = np.random.default_rng(0)
    probabilities = draws.uniform(0.001, 1, 500)
    right = draws.uniform(size=500) < probabilities**2
    fitted = fit_platt(probabilities.tolist(), right.tolist())
    assert fitted is not None
    hits = right.sum()
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (500 - hits + 2))
    logs = np.log(np.concatenate([probabilities, probabilities]))[:, None]  # each image is right and wrong, in part
    regression = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    regression.fit(logs, np.repeat([1, 0], 500), sample_weight=np.concatenate([target, 1 - target]))
    numbers = [np.asarray(one).item() for one in (regression.coef_, regression.intercept_)]
    assert fitted == pytest.approx(numbers, rel=1e-3)
    expected = np.asarray(regression.predict_proba(np.log([[0.3]])))[0, 1]
    assert apply_platt(0.3, fitted) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("right", [[], [True, True], [False, False]])
def test_where_all_transcripts_are_alike_nothing_is_fitted(right: list[bool]):
    assert fit_platt([0.5] * len(right), right) is None
    assert fit_platt([0.5, math.nan], [True, False]) is None


def test_the_map_keeps_the_order_of_transcripts():
    fitted = fit_platt([0.1, 0.2, 0.8, 0.9], [True, True, False, False])
    assert fitted is not None
    assert fitted[0] > 0
    values = [apply_platt(probability, fitted) for probability in (0.0, 1e-9, 0.3, 1.0)]
    assert values == sorted(values)
    assert apply_platt(0.0, (1e6, 0.0)) == 0
    assert math.isfinite(apply_platt(1.0, (1.0, 800.0)))
