"""Ensembles: the predictions of several models for the same images, combined or stacked."""

from collections.abc import Sequence

import torch
from torch import Tensor

from handwriting.utils.errors import UserError
from handwriting.utils.metrics import SMALLEST

WAYS = ("mean", "logits", "vote")


def combine(answers: Sequence[Tensor], way: str) -> Tensor:
    """Return the probabilities (N, classes) of an ensemble from those of its models, float (N, classes) each.

    ``mean``: mean of the probabilities. ``logits``: mean of the logits, that is the geometric mean of the
    probabilities. ``vote``: majority vote; the mean probability breaks ties. Raises UserError for another ``way``.
    """
    if way not in WAYS:
        raise UserError(f"ensemble={way} must be one of {', '.join(WAYS)}.")
    stacked = torch.stack(list(answers))
    if way == "mean":
        return stacked.mean(0)
    if way == "logits":  # SMALLEST, so that a single model cannot rule out a class
        return stacked.clamp_min(SMALLEST).log().mean(0).softmax(1)
    classes = stacked.shape[2]
    votes = torch.nn.functional.one_hot(stacked.argmax(2), classes).to(stacked.dtype).mean(0)
    return votes * (1 - 1e-3) + stacked.mean(0) * 1e-3


def stack(held_out: Sequence[Tensor], labels: Tensor, answers: Sequence[Tensor]) -> Tensor:
    """Return the probabilities (M, classes) of a stacked model: a logistic regression over the models' outputs.

    It is fitted on ``held_out``, the probabilities (N, classes) of each model for images that it was not trained on,
    and their ``labels`` (N,) (D. Wolpert, 1992, doi:10.1016/S0893-6080(05)80023-1). ``answers`` are the probabilities
    (M, classes) of the same models for the images to classify.
    """
    from sklearn.linear_model import LogisticRegression

    def features(outputs: Sequence[Tensor]) -> Tensor:
        return torch.cat([output.double().clamp_min(SMALLEST).log() for output in outputs], 1)

    regression = LogisticRegression(max_iter=2000, C=0.01).fit(features(held_out).numpy(), labels.numpy())
    return torch.from_numpy(regression.predict_proba(features(answers).numpy())).float()
