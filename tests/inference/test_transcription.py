"""Properties of images, ensembles and average precision of models for several characters."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from handwriting.data.dataset import END, LabelledImages
from handwriting.inference.transcription import Answer, combine, evaluate, properties
from handwriting.models.detector import Detector
from handwriting.models.digit_heads import DigitHeads
from handwriting.models.sequence_model import SequenceModel, SequenceRecognizer

SIZE = (32, 80)


def test_height_and_contrast_are_those_inside_the_boxes():
    images = torch.full((2, 3, 10, 20), 100, dtype=torch.uint8)
    images[0, :, 2:6, 5:9] = torch.tensor([130, 160, 190], dtype=torch.uint8)[:, None, None]  # grey level 160
    images[1] = torch.randint(256, (3, 10, 20), dtype=torch.uint8)
    images[0, :, 9] = 255  # outside
    boxes = torch.tensor([[[5, 2, 7, 6], [7, 2, 13, 4]], [[0, 0, 20, 10], [0, 0, 0, 0]]], dtype=torch.float32)
    found = properties(LabelledImages(images, torch.tensor([[1, 2], [3, END]]), boxes))
    assert list(found) == ["length", "height", "contrast"]
    assert found["length"].tolist() == [2, 1]
    assert found["height"].tolist() == [3, 10]
    assert found["contrast"][0] == pytest.approx(30)  # half of the hull is 160, half 100
    assert found["contrast"][1] == pytest.approx(images[1].float().mean(0).numpy().std(), rel=1e-5)


def test_without_boxes_only_the_length_is_known():
    dataset = LabelledImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([[1, END], [3, 2]]))
    assert {name: values.tolist() for name, values in properties(dataset).items()} == {"length": [1, 2]}


def trained(net: SequenceModel) -> Any:
    return SimpleNamespace(model=SequenceRecognizer(net, 0.4, 0.25), is_sequence=True)


def answer(one: Any, images: torch.Tensor) -> Answer:
    outputs = one.model.outputs(images)
    return Answer(one.model.transcripts(outputs), outputs)


@pytest.mark.parametrize(
    ("nets", "called"),
    [
        (
            (lambda: DigitHeads(10, SIZE, max_length=3), lambda: DigitHeads(10, SIZE, max_length=3, depths=[1] * 5)),
            "mean",
        ),
        ((lambda: DigitHeads(10, SIZE, max_length=3), lambda: DigitHeads(10, SIZE, max_length=4)), "vote"),
        ((lambda: DigitHeads(10, SIZE, max_length=3), lambda: Detector(10, SIZE)), "vote"),
        ((lambda: Detector(10, SIZE), lambda: Detector(10, SIZE, candidates=20)), "vote"),
        ((lambda: Detector(10, SIZE), lambda: Detector(10, SIZE, features=16)), "mean"),
    ],
)
def test_only_outputs_of_one_class_and_shape_are_merged(nets: Any, called: str):
    torch.manual_seed(0)
    members = [trained(net()) for net in nets]
    images = torch.randint(256, (70, 3, *SIZE), dtype=torch.uint8)  # more than a batch
    answers = [answer(one, images) for one in members]
    name, together = combine(members, answers, "mean")
    assert name == called
    assert len(together.transcripts) == 70
    assert len(together.outputs) == (2 if called == "mean" else 0)
    assert combine(members, answers, "vote")[0] == "vote"


def test_the_average_precision_of_an_ensemble_is_that_of_its_fused_boxes():
    boxes = torch.tensor([[[5, 5, 15, 25], [20, 5, 30, 25]]], dtype=torch.float32).repeat(70, 1, 1)
    dataset = LabelledImages(torch.zeros(70, 3, *SIZE, dtype=torch.uint8), torch.tensor([[1, 2]] * 70), boxes)
    probabilities = 0.9 * torch.nn.functional.one_hot(dataset.labels, 10).float()
    net = trained(Detector(10, SIZE))

    def moved(pixels: int) -> Answer:
        batches = zip((boxes + pixels).split(64), probabilities.split(64), strict=True)
        outputs: list[Any] = [([{"boxes": place, "probabilities": p}], [None]) for place, p in batches]
        return Answer(net.model.transcripts(outputs), outputs)

    answers = [moved(1), moved(-1)]
    assert [evaluate(one, dataset, 10)[3]["map"] for one in answers] == pytest.approx([0.5, 0.5], abs=0.1)
    together = combine([net, net], answers, "mean")[1]
    assert evaluate(together, dataset, 10)[3]["map"] == pytest.approx(1)  # the fused boxes are in their places
    assert "map" not in evaluate(combine([net, net], answers, "vote")[1], dataset, 10)[3]
