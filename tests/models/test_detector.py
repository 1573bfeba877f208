"""The anchor-free detector and detection followed by recognition, beside computations of their own."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import END, Sequences
from handwriting.models.detect_then_read import DetectThenRead
from handwriting.models.detections import centre_gaussians, region_of
from handwriting.models.detector import STRIDE, Detector, centre_loss
from handwriting.models.digit_heads import DigitHeads
from handwriting.models.sequence_model import SequenceModel
from handwriting.utils.errors import UserError

SIZE = (32, 64)
SMALL = {"widths": (8, 16, 24), "depths": (1, 2, 2), "features": 16}


def boards(count: int) -> tuple[Tensor, Sequences]:
    """Return images with one to three squares on noise, each in the colour of its class, and their targets."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(count, 3, *SIZE, generator=generator)
    labels, boxes = torch.full((count, 3), END), torch.zeros(count, 3, 4)
    for number in range(count):
        for place in range(1 + number % 3):
            label = int(torch.randint(3, (), generator=generator))
            left, top = 4 + 20 * place, 4 + int(torch.randint(12, (), generator=generator))
            images[number, label, top : top + 12, left : left + 10] = 1.0
            labels[number, place], boxes[number, place] = label, torch.tensor([left, top, left + 10, top + 12])
    return images, Sequences(labels, boxes)


def detector(**settings) -> Detector:
    torch.manual_seed(0)
    return Detector(num_classes=3, image_size=SIZE, **{**SMALL, **settings})


def overfit(net: SequenceModel, images: Tensor, targets: Sequences, steps: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net.train()
    for _ in range(steps):
        loss, _ = net.loss(images, targets, nn.CrossEntropyLoss())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    net.eval()


def fraction_right(net: SequenceModel, images: Tensor, targets: Sequences) -> float:
    with torch.inference_mode():
        found = net.decode(net(images))
    true = [tuple(label for label in row if label != END) for row in targets.labels.tolist()]
    return sum(one.labels == other for one, other in zip(found, true, strict=True)) / len(true)


def test_gaussians_are_one_in_the_cell_of_the_centre_and_fall_by_the_size_of_the_box():
    _, targets = boards(6)
    gaussians = centre_gaussians(targets, (SIZE[0] // STRIDE, SIZE[1] // STRIDE), STRIDE).numpy()
    assert targets.boxes is not None
    for labels, boxes, maps in zip(targets.labels.tolist(), targets.boxes.numpy() / STRIDE, gaussians, strict=True):
        for label, (left, top, right, bottom), values in zip(labels, boxes, maps, strict=True):
            if label == END:
                assert not values.any()
                continue
            row, column = int((top + bottom) / 2), int((left + right) / 2)
            expected = [
                [
                    math.exp(
                        -(((y - row) / ((bottom - top) / 6)) ** 2 + ((x - column) / ((right - left) / 6)) ** 2) / 2
                    )
                    for x in range(values.shape[1])
                ]
                for y in range(values.shape[0])
            ]
            np.testing.assert_allclose(values, expected, atol=1e-5)
            assert values[row, column] == 1


def test_the_loss_of_centres_is_that_of_cornernet():
    logits = torch.tensor([[0.3, -1.0], [2.0, -3.0]])
    heat = torch.tensor([[1.0, 0.5], [0.0, 0.9]])
    expected = 0.0
    for logit, target in zip(logits.flatten().tolist(), heat.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        expected -= (1 - p) ** 2 * math.log(p) if target == 1 else (1 - target) ** 4 * p**2 * math.log(1 - p)
    assert centre_loss(logits, heat).item() == pytest.approx(expected, rel=1e-5)


def test_perfect_maps_are_decoded_to_the_true_boxes():
    _, targets = boards(6)
    assert targets.boxes is not None
    cells = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    gaussians, owner = centre_gaussians(targets, cells, STRIDE).max(1)
    centres = torch.where(gaussians == 1, 8.0, -8.0)
    label = targets.labels.gather(1, owner.flatten(1)).view_as(owner).clamp(min=0)
    classes = 20.0 * F.one_hot(label, 3).movedim(3, 1)
    box = targets.boxes.gather(1, owner.flatten(1)[:, :, None].expand(-1, -1, 4)).view(*owner.shape, 4).movedim(3, 1)
    y = (torch.arange(cells[0])[:, None] + 0.5) * STRIDE
    x = (torch.arange(cells[1])[None] + 0.5) * STRIDE
    distances = torch.stack([x - box[:, 0], y - box[:, 1], box[:, 2] - x, box[:, 3] - y], 1)
    net = detector()
    found = net.decode(net.find(centres, classes, distances))
    for one, labels, boxes in zip(found, targets.labels, targets.boxes, strict=True):
        assert one.labels == tuple(labels[labels != END].tolist())
        np.testing.assert_allclose(one.boxes, boxes[labels != END], atol=1e-3)
    assert net.loss_of_maps(centres, classes, distances, targets) < 0.01


def test_a_detector_overfits_a_few_images():
    images, targets = boards(12)
    net = detector()
    overfit(net, images, targets, steps=70)
    assert fraction_right(net, images, targets) == 1
    assert targets.boxes is not None
    with torch.inference_mode():
        found = net.decode(net(images))[2]
    np.testing.assert_allclose(found.boxes, targets.boxes[2], atol=2.5)


def test_the_loss_outside_training_comes_with_what_forward_returns():
    images, targets = boards(3)
    net = detector().eval()
    _, outputs = net.loss(images, targets, nn.CrossEntropyLoss())
    for name, values in net(images).items():
        torch.testing.assert_close(outputs[name], values)


def test_an_image_without_characters_has_a_finite_loss():
    net = detector()
    nothing = Sequences(torch.full((2, 3), END), torch.zeros(2, 3, 4))
    loss, _ = net.loss(torch.rand(2, 3, *SIZE), nothing, nn.CrossEntropyLoss())
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())


def detect_then_read(**settings) -> DetectThenRead:
    torch.manual_seed(0)
    return DetectThenRead(
        num_classes=3,
        image_size=SIZE,
        detector=partial(Detector, **SMALL),
        recogniser=partial(DigitHeads, max_length=3, widths=(8, 16, 24), depths=(1, 1, 1), features=16),
        crop_size=(32, 48),
        **settings,
    )


def test_the_region_is_the_hull_of_the_chosen_boxes_with_a_margin():
    boxes = torch.tensor([[[10.0, 5, 20, 25], [18, 8, 30, 30], [0, 0, 64, 32]]])
    chosen = torch.tensor([[True, True, False]])
    assert region_of(boxes, chosen, 0.0).tolist() == [[10, 5, 30, 30]]
    assert region_of(boxes, chosen, 0.2).tolist() == [[5, 0, 35, 35]]


def test_a_crop_of_its_own_size_is_a_part_of_the_image():
    net, images = detect_then_read(), torch.rand(2, 3, *SIZE)
    crop = net._crop(images, torch.tensor([[5.0, 0, 53, 32], [16, 0, 64, 32]]))
    torch.testing.assert_close(crop, torch.stack([images[0, :, :, 5:53], images[1, :, :, 16:64]]))


def test_the_recogniser_learns_from_boxes_in_the_crop():
    box = torch.tensor([24.0, 8, 32, 24])
    images = torch.zeros(1, 3, *SIZE)
    images[:, :, 8:24, 24:32] = 1
    net, region = detect_then_read(), torch.tensor([[16.0, 0, 40, 32]])
    left, top, right, bottom = net._in_crop(box[None, None], region)[0, 0].tolist()
    rows, columns = (net._crop(images, region)[0, 0] > 0.5).nonzero().unbind(1)
    assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.long
@pytest.mark.parametrize("shrink", [1, 2])
def test_detect_then_read_overfits_a_few_images(shrink: int):
    images, targets = boards(12)
    net = detect_then_read(shrink=shrink, jitter=0.05)
    overfit(net, images, targets, steps=120)
    assert fraction_right(net, images, targets) == 1


def test_a_shrink_that_does_not_divide_the_image_is_refused():
    with pytest.raises(UserError, match=r"model\.shrink=3 must divide"):
        detect_then_read(shrink=3)
