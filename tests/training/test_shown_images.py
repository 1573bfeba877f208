"""What a run draws of its images: single characters and numbers with boxes, in grey and in colours."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from handwriting.data import Augmentation, LabelledImages
from handwriting.data.augment import Noise
from handwriting.data.augment_scenes import SceneWarp
from handwriting.data.dataset import END, boxes_of, pictures, texts, typical_images
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript
from handwriting.runs.record import Run
from handwriting.training.recognizer import Recognizer
from handwriting.training.tensorboard import show_augmentation, show_images, show_result

DIGITS = tuple("0123456789")
BOXES = torch.tensor([[[2.0, 3, 10, 20], [12, 4, 22, 21]], [[30, 5, 40, 25], [0, 0, 0, 0]]]).repeat(4, 1, 1)
LABELS = torch.tensor([[4, 2], [7, END]]).repeat(4, 1)


def some_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


SETS = {
    "characters": LabelledImages(some_images(8, 1, 28, 28), torch.arange(8)),
    "colour": LabelledImages(some_images(8, 3, 32, 32), torch.arange(8)),
    "numbers": LabelledImages(some_images(8, 3, 32, 80), LABELS, BOXES),
    "numbers without boxes": LabelledImages(some_images(8, 3, 32, 80), LABELS),
}


class Recorder:
    """A logger that keeps figures."""

    def __init__(self):
        self.figures: dict[str, Figure] = {}
        self.experiment = self

    def add_figure(self, tag: str, figure: Figure, *_: object) -> None:
        self.figures[tag] = figure


def made(name: str, **settings: Any) -> Any:
    train = SETS[name]
    augmentation = Augmentation(**settings)
    size = tuple(train.images.shape[2:])
    return SimpleNamespace(train=train, class_names=DIGITS, glyphs=(), augmentation=augmentation, image_size=size)


@pytest.mark.parametrize("name", SETS)
def test_training_images_have_their_text_and_their_boxes(name: str):
    logger: Any = Recorder()
    show_images(logger, made(name))
    axes = logger.figures["train/images"].axes[0]
    expected = ["42", "7"] * 4 if "numbers" in name else [str(label) for label in range(8)]
    assert [text.get_text() for text in axes.texts] == expected
    assert len(axes.patches) == (12 if name == "numbers" else 0)


@pytest.mark.parametrize("name", SETS)
def test_the_figure_of_the_augmentation_has_boxes_that_moved(name: str, tmp_path: Path):
    logger: Any = Recorder()
    step = SceneWarp(degrees=10, shift=0.2)
    show_augmentation(logger, made(name, steps={"warp": step, "noise": Noise(1.0, 0.1)}), tmp_path)
    assert (tmp_path / "augment.png").read_bytes().startswith(b"\x89PNG")
    axes = logger.figures["train/augmented"].axes[0]
    assert [text.get_text() for text in axes.texts] == ["original", *(f"random {i}" for i in (1, 2, 3, 4))]
    if name == "numbers":
        corners = np.array([(box.get_x(), box.get_y()) for box in axes.patches]).reshape(5, 9, 2)  # of 6 images
        moved = corners[1:] - corners[0] - [[[0, 34 * row]] for row in range(1, 5)]
        assert (np.abs(moved).max((1, 2)) > 2).all()
    else:
        assert not axes.patches


class Always(SequenceModel):
    """Predicts 4 in one place in every image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> Outputs:
        return {"images": images}

    def decode(self, outputs: Outputs) -> list[Transcript]:
        return [Transcript((0, 4), 0.5, (0.7, 0.7), ((1, 2, 9, 20), (12, 4, 22, 21)))] * len(outputs["images"])


def test_the_result_of_several_characters_has_texts_boxes_and_what_is_missing(tmp_path: Path):
    logger: Any = Recorder()
    model = Recognizer(Always(), partial(torch.optim.SGD, lr=0.1))
    model.confused[4, 4], model.confused[2, 10], model.confused[10, 7] = 8, 3, 2
    split = SETS["numbers"]
    data: Any = SimpleNamespace(
        is_sequence=True,
        class_names=DIGITS,
        glyphs=(),
        split="kfold",
        held_out=torch.arange(10, 18),
        val=split,
        test=split,
    )
    show_result(logger, data, model, tmp_path, 7)
    table = pd.read_csv(tmp_path / "per_class.csv", keep_default_na=False)
    assert table["name"].tolist() == [*DIGITS, "none"]
    mistaken = table["mistaken for"].tolist()
    assert (mistaken[2], mistaken[10]) == ("none (3)", "7 (2)")
    held_out = Run(tmp_path, {}).held_out()
    assert held_out is not None
    assert held_out["image"].tolist() == list(range(10, 18))
    assert held_out["label_text"].tolist() == ["42", "7"] * 4
    assert held_out["read_text"].tolist() == ["04"] * 8
    assert held_out["probability"].tolist() == [0.5] * 8
    labels = logger.figures["test/confusion"].axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == [*DIGITS, "none"]
    shown = [axes for axes in logger.figures["test/predictions"].axes if axes.images]
    assert [axes.get_title() for axes in shown[:2]] == ["true 42\npred. 04\n50.0%", "true 7\npred. 04\n50.0%"]
    assert all(len(axes.patches) == 2 for axes in shown)


def test_images_texts_and_boxes_for_figures():
    grey, colour = SETS["characters"], SETS["numbers"]
    assert pictures(grey.images).shape == (8, 28, 28)
    np.testing.assert_array_equal(pictures(colour.images)[3, 5, 7], colour.images[3, :, 5, 7])
    assert texts(grey.labels, DIGITS)[:3] == ["0", "1", "2"]
    assert texts(colour.labels, DIGITS)[:2] == ["42", "7"]
    assert [boxes.shape for boxes in boxes_of(colour.labels, colour.boxes)[:2]] == [(2, 4), (1, 4)]
    np.testing.assert_array_equal(boxes_of(colour.labels, colour.boxes)[1], [[30, 5, 40, 25]])
    assert [len(boxes) for boxes in boxes_of(grey.labels, None)] == [0] * 8


@pytest.mark.parametrize("name", SETS)
def test_only_single_grey_characters_have_typical_images(name: str):
    found = typical_images(SETS[name], 10)
    assert found.dtype == torch.uint8
    assert found.shape == ((10, 28, 28) if name == "characters" else (0, *SETS[name].images.shape[2:]))
