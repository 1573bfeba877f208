"""Read images of handwriting with a trained net: ``Reader.load("outputs/mnist/optim=adam").read(["seven.png"])``."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handwriting.inference.checkpoints import Trained, find_checkpoint, load_trained, predict_proba
from handwriting.inference.preprocess import Framed, bring_into_frame, open_image, to_grey
from handwriting.utils.errors import UserError
from handwriting.utils.text import shorten

# A file, the content of one, an image, or grey levels (H, W): uint8, or float of 0…1.
Source = str | Path | bytes | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Reading:
    """What an image was read as, or in ``error`` why it could not be read."""

    label: int = -1
    name: str = ""
    glyph: str = ""
    probability: float = 0.0
    likeliest: tuple[tuple[str, float], ...] = ()  # five classes and their probabilities
    framed: Framed | None = None  # the image that the net saw, and the steps to it where they were asked for
    error: str = ""


class Reader:
    """A trained net that reads images of any size, of scans and photographs, in batches."""

    def __init__(self, trained: Trained):
        self.trained = trained
        self.short_names = shorten(trained.class_names)

    @classmethod
    def load(cls, place: str | Path) -> "Reader":
        """Load a checkpoint, or the chosen one of a run's folder; UserError when there is none or it is not whole."""
        return cls(load_trained(find_checkpoint(Path(place))))

    def read(self, sources: Iterable[Source], views: int = 1, augment: str = "", steps: int = 0) -> list[Reading]:
        """Classify images; one that cannot be read becomes a reading with an ``error``, and the others are classified.

        Sources are opened one by one, and of each only the image that the net sees is kept; the first ``steps`` of
        those that could be read keep in ``framed.steps`` what each step made of them. With several ``views`` the
        probabilities are the mean over the image and as many less one augmented views, made as the run made them or by
        the augmentation named, such as ``affine``; UserError when that makes fewer.
        """
        framed: list[Framed | str] = []
        images: list[np.ndarray] = []
        for source in sources:
            one = self._frame(source)
            if isinstance(one, Framed):
                one = one if len(images) < steps else Framed(one.image)
                images.append(one.image)
            framed.append(one)
        if not images:
            return [Reading(error=one) for one in framed if isinstance(one, str)]
        answers = iter(predict_proba(self.trained, torch.from_numpy(np.stack(images))[:, None], views, augment))
        return [self._reading(one, next(answers)) if isinstance(one, Framed) else Reading(error=one) for one in framed]

    def called(self, label: int) -> str:
        """Return a class as its glyph and its short name."""
        name = self.short_names[label]
        return f"{self.trained.glyphs[label]} {name}".strip() if self.trained.glyphs else name

    def _frame(self, source: Source) -> Framed | str:
        """Return the image that the net sees, or why there is none: the error itself would keep the photograph."""
        try:
            return bring_into_frame(_grey(source), self.trained.image_size, self.trained.ink)
        except UserError as error:
            return str(error)

    def _reading(self, framed: Framed, probabilities: Tensor) -> Reading:
        top = probabilities.topk(min(5, len(probabilities)))
        likeliest = tuple(
            (self.called(label), value) for label, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        )
        label = int(top.indices[0])
        glyph = self.trained.glyphs[label] if self.trained.glyphs else ""
        return Reading(label, self.trained.class_names[label], glyph, likeliest[0][1], likeliest, framed)


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
        raise UserError(f"An array of {array.dtype} cannot be read: uint8, or float of 0…1, is wanted.")
    return array.squeeze() / (255 if whole else 1)
