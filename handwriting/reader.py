"""Python API to predict with a trained model: ``Reader.load("outputs/mnist/optim=adam").read(["7.png"])``."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handwriting.data.dataset import text_of
from handwriting.data.photographs import fit_to, open_photograph, to_colour
from handwriting.inference.checkpoints import Trained, find_checkpoint, load_trained, predict_proba, transcribe
from handwriting.inference.predictions import Box, Character, Prediction
from handwriting.inference.preprocess import (
    Preprocessed,
    fit_photograph,
    open_image,
    preprocess,
    to_grey,
)
from handwriting.models.sequence_model import Transcript
from handwriting.runs.trust import Trust
from handwriting.utils.errors import UserError
from handwriting.utils.text import shorten

# A path, the content of a file, an image, or an array (H, W) or (H, W, 3): uint8, or float of 0…1.
Source = str | Path | bytes | Image.Image | np.ndarray | Tensor


class Reader:
    """A trained model that predicts scans and photographs of any size, in batches: one character, or several."""

    def __init__(self, trained: Trained):
        self.trained = trained
        self.short_names = shorten(trained.class_names)
        self.fits = trained.photographs or trained.is_sequence  # images are only fitted to the size of the input

    @classmethod
    def load(cls, place: str | Path, trust: object = ()) -> "Reader":
        """Load a checkpoint, or the best one of a run's folder. Raises UserError if there is none or it is damaged.

        ``trust`` are your own modules, classes or functions that the checkpoint may name, such as ``[MyNet]``, or one
        of them; nothing else outside this package is imported.
        """
        if isinstance(trust, (str, type)) or not isinstance(trust, (Trust, Iterable)):
            trust = [trust]
        trusted = trust if isinstance(trust, Trust) else Trust.of(trust)
        return cls(load_trained(find_checkpoint(Path(place)), trusted))

    def read(self, sources: Iterable[Source], views: int = 1, augment: str = "", steps: int = 0) -> list[Prediction]:
        """Predict images. An image that cannot be read has a Prediction with an ``error``.

        Sources are opened one by one, and only the preprocessed image of each is kept. The first ``steps`` images that
        can be read also keep the result of each step in ``preprocessed.steps``. With ``views`` > 1 the predictions are
        merged over the image and ``views - 1`` augmented versions (test-time augmentation), made as in the run or by
        the augmentation ``augment``, such as ``affine``. Raises UserError if the augmentation makes fewer views.
        """
        preprocessed: list[Preprocessed | str] = []
        kept = steps
        for source in sources:
            one = self._preprocess(source)
            if isinstance(one, Preprocessed):
                one, kept = (one if kept > 0 else replace(one, steps={})), kept - 1
            preprocessed.append(one)
        predicted = iter(self._predict([one for one in preprocessed if isinstance(one, Preprocessed)], views, augment))
        none = () if self.trained.is_sequence else None
        return [
            next(predicted) if isinstance(one, Preprocessed) else Prediction(characters=none, error=one)
            for one in preprocessed
        ]

    def open(self, source: Source, name: str = "") -> np.ndarray:
        """Return an image as the model needs it: a photograph, uint8 (H, W, 3), or grey levels, (H, W) of 0…1.

        Raises UserError, which calls the image ``name``, if it cannot be read.
        """
        if isinstance(source, (str, Path)):
            return open_photograph(Path(source), name) if self.fits else open_image(Path(source), name)
        if isinstance(source, bytes):
            content, name = io.BytesIO(source), name or "standard input"
            return open_photograph(content, name) if self.fits else open_image(content, name)
        image = source if isinstance(source, Image.Image) else _as_image(source)
        return to_colour(image) if self.fits else to_grey(image)

    def called(self, label: int) -> str:
        """Return the glyph and the short name of a class."""
        name = self.short_names[label]
        return f"{self.trained.glyphs[label]} {name}".strip() if self.trained.glyphs else name

    def _preprocess(self, source: Source) -> Preprocessed | str:
        """Return the preprocessed image, or the error as text: the exception would keep the photograph in memory."""
        try:
            opened, size = self.open(source), self.trained.image_size
            if self.fits:
                return fit_photograph(opened, size, self.trained.channels)
            return preprocess(opened, size, self.trained.foreground)
        except UserError as error:
            return str(error)

    def _predict(self, preprocessed: list[Preprocessed], views: int, augment: str) -> list[Prediction]:
        if not preprocessed:
            return []
        stacked = torch.from_numpy(np.stack([one.image for one in preprocessed]))
        images = stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)
        if self.trained.is_sequence:
            return list(map(self._text, preprocessed, transcribe(self.trained, images, views, augment)))
        return list(map(self._class, preprocessed, predict_proba(self.trained, images, views, augment)))

    def _class(self, preprocessed: Preprocessed, probabilities: Tensor) -> Prediction:
        top = probabilities.topk(min(5, len(probabilities)))
        likeliest = tuple(
            (self.called(label), value) for label, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        )
        label = int(top.indices[0])
        glyph = self.trained.glyphs[label] if self.trained.glyphs else ""
        return Prediction(label, self.trained.class_names[label], glyph, likeliest[0][1], likeliest, preprocessed)

    def _text(self, preprocessed: Preprocessed, transcript: Transcript) -> Prediction:
        names, labels = self.trained.class_names, transcript.labels
        text, boxes = text_of(labels, names), _on_photograph(transcript.boxes, preprocessed)
        characters = tuple(
            Character(names[label], transcript.probabilities[place], boxes[place] if boxes else None)
            for place, label in enumerate(labels)
        )
        glyphs = text_of(labels, self.trained.glyphs) if self.trained.glyphs else ""
        return Prediction(-1, text, glyphs, transcript.probability, (), preprocessed, characters)


def _on_photograph(boxes: Sequence[Box], preprocessed: Preprocessed) -> list[Box]:
    """Return boxes in pixels of the model's input as boxes in pixels of the photograph, within it."""
    if preprocessed.photograph is None:
        return list(boxes)
    height, width = preprocessed.photograph
    fit = fit_to(preprocessed.photograph, preprocessed.image.shape[:2])
    inside = np.clip(fit.to_photograph(boxes), 0, (width, height, width, height))
    return [(left, top, right, bottom) for left, top, right, bottom in inside.tolist()]


def _as_image(source: np.ndarray | Tensor) -> Image.Image:
    """Return an array (H, W) or (H, W, 3), uint8 or float of 0…1, as an image; channels may come first.

    Raises UserError for another shape, type or range.
    """
    array = np.asarray(source.cpu() if isinstance(source, Tensor) else source)
    if array.ndim > 2 and array.shape[-1] != 3:
        array = array.squeeze()
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim < 2 or array.shape[2:] not in ((), (3,)) or not array.size:
        raise UserError(f"An array of shape {array.shape} cannot be read: (H, W) or (H, W, 3) is expected.")
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):
        raise UserError(f"An array of {array.dtype} cannot be read: uint8, or float of 0…1, is expected.")
    return Image.fromarray(array.astype(np.float32) if array.ndim == 2 else np.rint(255 * array).astype(np.uint8))
