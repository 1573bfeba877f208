"""Several readings of the same images made one: of several nets, or of one net that sees several views."""

from collections.abc import Sequence

import torch
from torch import Tensor

from handwriting.utils.errors import UserError
from handwriting.utils.metrics import SMALLEST

WAYS = ("mean", "logits", "vote")


def combine(answers: Sequence[Tensor], way: str) -> Tensor:
    """Return one reader's probabilities (N, classes) from those of several: float (N, classes) each.

    ``mean``: of the probabilities. ``logits``: of the logits, which is the geometric mean of the probabilities.
    ``vote``: each reader has one vote an image; where two classes have as many, the mean decides. Raises UserError for
    another way.
    """
    if way not in WAYS:
        raise UserError(f"ensemble={way} must be one of {', '.join(WAYS)}.")
    stacked = torch.stack(list(answers))
    if way == "mean":
        return stacked.mean(0)
    if way == "logits":  # SMALLEST, so that one net alone cannot rule a class out
        return stacked.clamp_min(SMALLEST).log().mean(0).softmax(1)
    classes = stacked.shape[2]
    votes = torch.nn.functional.one_hot(stacked.argmax(2), classes).to(stacked.dtype).mean(0)
    return votes * (1 - 1e-3) + stacked.mean(0) * 1e-3


def stack(held_out: Sequence[Tensor], labels: Tensor, answers: Sequence[Tensor]) -> Tensor:
    """Return probabilities (M, classes) of a logistic regression over what several readers say.

    It learns how far to trust each reader from ``held_out``, what each said, (N, classes), of images that it was not
    trained on, and from their ``labels`` (N,) (D. Wolpert, 1992, doi:10.1016/S0893-6080(05)80023-1); then it reads the
    ``answers`` (M, classes) of the same readers.
    """
    from sklearn.linear_model import LogisticRegression

    def features(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.double().clamp_min(SMALLEST).log() for part in parts], 1)

    regression = LogisticRegression(max_iter=2000, C=0.01).fit(features(held_out).numpy(), labels.numpy())
    return torch.from_numpy(regression.predict_proba(features(answers).numpy())).float()
