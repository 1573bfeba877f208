"""scikit-learn's bundled digits: real handwriting without files and network."""

from functools import cache

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.mnist import DIGITS

TEST_IMAGES = 500
SIDE, MARGIN = 20, 4  # as in MNIST: the digit in a 20×20 box with a margin of 4 pixels


def read_digits() -> HandwritingSet:
    """Return the 1,797 digits of UCI's optdigits test set (E. Alpaydin, C. Kaynak, 1998), resized to 28×28.

    They are 8×8 with 17 grey levels, ordered by writer; there is no published split. The last 500 are the test set
    here, so that most of its writers are not in the training set.
    """
    whole = _all_digits()
    order = torch.arange(len(whole))
    return HandwritingSet(whole[order[:-TEST_IMAGES]], whole[order[-TEST_IMAGES:]], DIGITS)


@cache
def _all_digits() -> LabelledImages:
    """Return all digits, enlarged once for all jobs of a sweep; read_digits returns copies."""
    bunch: dict = load_digits()  # type: ignore[assignment]  # a Bunch, which is a dict
    small = np.round(bunch["images"] * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(small), SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), np.uint8)
    images[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = [_enlarge(image) for image in small]
    return LabelledImages(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(bunch["target"]).long())


def _enlarge(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
