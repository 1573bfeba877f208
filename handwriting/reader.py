"""Python API to classify images with a trained model: ``Reader.load("outputs/mnist/optim=adam").read(["7.png"])``."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handwriting.inference.checkpoints import Trained, find_checkpoint, load_trained, predict_proba
from handwriting.inference.predictions import Prediction
from handwriting.inference.preprocess import Preprocessed, open_image, preprocess, to_grey
from handwriting.utils.errors import UserError
from handwriting.utils.text import shorten

# A path, the content of a file, an image, or grey levels (H, W): uint8, or float of 0…1.
Source = str | Path | bytes | Image.Image | np.ndarray | Tensor


class Reader:
    """A trained model that classifies scans and photographs of any size, in batches."""

    def __init__(self, trained: Trained):
        self.trained = trained
        self.short_names = shorten(trained.class_names)

    @classmethod
    def load(cls, place: str | Path) -> "Reader":
        """Load a checkpoint, or the best one of a run's folder. Raises UserError if there is none or it is damaged."""
        return cls(load_trained(find_checkpoint(Path(place))))

    def read(self, sources: Iterable[Source], views: int = 1, augment: str = "", steps: int = 0) -> list[Prediction]:
        """Classify images. An image that cannot be read has a Prediction with an ``error``.

        Sources are opened one by one, and only the preprocessed image of each is kept. The first ``steps`` images that
        can be read also keep the result of each step in ``preprocessed.steps``. With ``views`` > 1 the probabilities
        are the mean over the image and ``views - 1`` augmented versions (test-time augmentation), made as in the run or
        by the augmentation ``augment``, such as ``affine``. Raises UserError if the augmentation makes fewer views.
        """
        preprocessed: list[Preprocessed | str] = []
        images: list[np.ndarray] = []
        for source in sources:
            one = self._preprocess(source)
            if isinstance(one, Preprocessed):
                one = one if len(images) < steps else Preprocessed(one.image)
                images.append(one.image)
            preprocessed.append(one)
        if not images:
            return [Prediction(error=one) for one in preprocessed if isinstance(one, str)]
        answers = iter(predict_proba(self.trained, torch.from_numpy(np.stack(images))[:, None], views, augment))
        return [
            self._predict(one, next(answers)) if isinstance(one, Preprocessed) else Prediction(error=one)
            for one in preprocessed
        ]

    def called(self, label: int) -> str:
        """Return the glyph and the short name of a class."""
        name = self.short_names[label]
        return f"{self.trained.glyphs[label]} {name}".strip() if self.trained.glyphs else name

    def _preprocess(self, source: Source) -> Preprocessed | str:
        """Return the preprocessed image, or the error as text: the exception would keep the photograph in memory."""
        try:
            return preprocess(_grey(source), self.trained.image_size, self.trained.foreground)
        except UserError as error:
            return str(error)

    def _predict(self, preprocessed: Preprocessed, probabilities: Tensor) -> Prediction:
        top = probabilities.topk(min(5, len(probabilities)))
        likeliest = tuple(
            (self.called(label), value) for label, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        )
        label = int(top.indices[0])
        glyph = self.trained.glyphs[label] if self.trained.glyphs else ""
        return Prediction(label, self.trained.class_names[label], glyph, likeliest[0][1], likeliest, preprocessed)


def _grey(source: Source) -> np.ndarray:
    if isinstance(source, (str, Path)):
        return open_image(Path(source))
    if isinstance(source, bytes):
        return open_image(io.BytesIO(source), "standard input")
    if isinstance(source, Image.Image):
        return to_grey(source)
    array = np.asarray(source.cpu() if isinstance(source, Tensor) else source)
    whole = array.dtype == np.uint8
    if not whole and (array.dtype.kind != "f" or array.min(initial=0) < 0 or array.max(initial=0) > 1):
        raise UserError(f"An array of {array.dtype} cannot be read: uint8, or float of 0…1, is expected.")
    return array.squeeze() / (255 if whole else 1)
