"""Calibration: probabilities that agree with how often predictions are right, fitted on a validation set."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

HOTTEST = 20.0  # largest temperature; its inverse is the smallest
LEAST = 1e-30  # lower limit of a transcript's probability, whose logarithm is taken
Platt = tuple[float, float]  # slope and intercept


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that minimises the cross-entropy of ``logits / temperature``.

    ``logits`` are float (N, classes), ``labels`` int64 (N,) of a validation set (C. Guo et al., 2017,
    arXiv:1706.04599). It is 1 if no image or every image is classified correctly: then there is nothing to estimate.
    """
    from scipy.optimize import minimize_scalar  # here and below: predict starts without scipy

    if not len(labels) or bool((logits.argmax(1) == labels).all()) or not bool(logits.isfinite().all()):
        return 1.0
    exact = logits.double()

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(exact / math.exp(log_temperature), labels).item()

    limit = math.log(HOTTEST)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def fit_platt(probabilities: Sequence[float], right: Sequence[bool]) -> Platt | None:
    """Return slope and intercept of the logistic map from the log-probability of a transcript to that of being right.

    ``probabilities`` (N,) are those of the transcripts of a validation set, ``right`` (N,) says which are right
    (J. Platt, 1999, with his targets, which are not quite 0 and 1). The slope is not negative. None if no transcript
    or every transcript is right, or if a probability is NaN: then there is nothing to estimate.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    hits = sum(right)
    if not 0 < hits < len(right) or not all(map(math.isfinite, probabilities)):
        return None
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST))
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        scores = numbers[0] * logs + numbers[1]
        error = expit(scores) - target
        return float(np.mean(np.logaddexp(0, scores) - target * scores)), np.array([error @ logs, error.sum()]) / len(
            logs
        )

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=[(1e-3, None), (None, None)], tol=1e-12)
    return float(found.x[0]), float(found.x[1])


def apply_platt(probability: float, numbers: Platt) -> float:
    """Return the calibrated probability of a transcript."""
    score = numbers[0] * math.log(max(probability, LEAST)) + numbers[1]
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0
