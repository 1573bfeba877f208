"""SSDLite: its outputs, and its loss against heads that find every digit exactly."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from handwriting.data.dataset import END, Sequences
from handwriting.models.ssdlite import SSDLite

SMALL: dict[str, Any] = {"num_classes": 4, "image_size": (32, 48), "width": 0.2, "candidates": 40}
DIGITS = Sequences(
    torch.tensor([[3, 0, END], [1, END, END], [END, END, END]]),
    torch.tensor(
        [
            [[4.0, 6, 13, 24], [22, 5, 33, 29], [0, 0, 0, 0]],
            [[30.0, 2, 38, 14], [0, 0, 0, 0], [0, 0, 0, 0]],
            [[0.0, 0, 0, 0]] * 3,
        ]
    ),
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 48), (30, 50)])
@pytest.mark.parametrize("upsample", [1, 2])
def test_each_image_has_as_many_candidates_inside_it(channels: int, size: tuple[int, int], upsample: int):
    net = SSDLite(channels=channels, upsample=upsample, **{**SMALL, "image_size": size}).eval()
    outputs = net(torch.randn(2, channels, *size))
    assert {name: values.shape for name, values in outputs.items()} == {
        "boxes": (2, 40, 4),
        "probabilities": (2, 40, 4),
    }
    left, top, right, bottom = outputs["boxes"].unbind(2)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= size[1]).all()
    assert (bottom <= size[0]).all()
    scores = outputs["probabilities"].amax(2)
    assert all((before >= after).all() for before, after in pairwise(scores.T))


def test_there_are_no_more_candidates_than_anchors():
    net = SSDLite(4, (16, 16), width=0.2, candidates=1000).eval()
    assert len(net.anchors) == 2 * 2 * 9 + 1 * 6
    assert net(torch.randn(1, 3, 16, 16))["boxes"].shape == (1, 42, 4)


@pytest.mark.parametrize("upsample", [1, 2])
def test_heads_that_find_every_digit_have_no_loss_and_decode_to_the_numbers(upsample: int):
    net = SSDLite(upsample=upsample, **{**SMALL, "image_size": (30, 50)}).eval()
    assert DIGITS.boxes is not None
    logits = torch.full((3, len(net.anchors), 5), -20.0)
    logits[..., 0] = 20
    offsets = torch.zeros(3, len(net.anchors), 4)
    for image, (labels, boxes) in enumerate(zip(DIGITS.labels, DIGITS.boxes, strict=True)):
        scaled = boxes[labels != END] * net.scale
        found = net._match(scaled)
        hits = found >= 0
        assert set(found[hits].tolist()) == set(range(len(scaled)))
        offsets[image, hits] = net.ssd.box_coder.encode_single(scaled[found[hits]], net.anchors[hits])
        logits[image, hits, 0] = -20
        logits[image, hits.nonzero()[:, 0], labels[found[hits]] + 1] = 20
    net._heads = lambda images: {"cls_logits": logits, "bbox_regression": offsets}  # type: ignore[method-assign]
    loss, outputs = net.loss(torch.zeros(3, 3, 30, 50), DIGITS, nn.Identity())
    transcripts = net.decode(outputs)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert [one.labels for one in transcripts] == [(3, 0), (1,), ()]
    assert [one.probability for one in transcripts] == pytest.approx([1, 1, 1], abs=1e-6)
    for transcript, boxes in zip(transcripts, DIGITS.boxes, strict=True):
        for found, expected in zip(transcript.boxes, boxes.tolist(), strict=False):
            assert found == pytest.approx(expected, abs=1e-3)


def test_digits_of_ten_pixels_and_of_the_whole_height_have_an_anchor_of_their_size():
    net = SSDLite(width=0.2)
    for height, width in ((10.0, 6.0), (26.0, 14.0), (40.0, 18.0), (60.0, 30.0)):
        centres = torch.arange(20.0, 140.0, 1.0)
        box = torch.stack([centres - width / 2, torch.full((120,), 32 - height / 2), centres + width / 2], 1)
        boxes = torch.cat([box, torch.full((120, 1), 32 + height / 2)], 1)
        matched = [int((net._match(one[None]) >= 0).sum()) for one in boxes]
        assert min(matched) >= 1
        assert sum(matched) / 120 >= 2, height


def test_training_steps_lower_the_loss_and_reach_every_parameter():
    net, images = SSDLite(**SMALL), torch.rand(3, 3, 32, 48)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        loss, outputs = net.loss(images, DIGITS, nn.Identity())
        assert not outputs
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_boxes_without_area_are_left_out_of_the_loss():
    assert DIGITS.boxes is not None
    net, images = SSDLite(**SMALL).eval(), torch.randn(1, 3, 32, 48)
    thin = DIGITS.boxes[:1].clone()
    thin[0, 1, 2] = thin[0, 1, 0]
    loss, _ = net.loss(images, Sequences(DIGITS.labels[:1], thin), nn.Identity())
    alone, _ = net.loss(images, Sequences(torch.tensor([[3, END, END]]), DIGITS.boxes[:1]), nn.Identity())
    assert loss.isfinite()
    torch.testing.assert_close(loss, alone)


def test_a_batch_without_digits_has_a_finite_loss():
    loss, _ = SSDLite(**SMALL).loss(
        torch.randn(2, 3, 32, 48), Sequences(torch.full((2, 3), END), torch.zeros(2, 3, 4)), nn.Identity()
    )
    loss.backward()
    assert loss.isfinite()


def test_grey_images_are_seen_as_three_equal_channels():
    net, images = SSDLite(channels=1, **SMALL).eval(), torch.randn(1, 1, 32, 48)
    torch.testing.assert_close(net(images), net(images.expand(-1, 3, -1, -1)))


@pytest.mark.long
def test_it_is_exported_for_any_number_of_images():
    net = SSDLite(**SMALL).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 32, 48),), dynamic_shapes=({0: torch.export.Dim("N")},))
    images = torch.randn(3, 3, 32, 48)
    torch.testing.assert_close(exported.module()(images), net(images))


def test_the_anchors_are_not_in_the_checkpoint():
    assert not [key for key in SSDLite(**SMALL).state_dict() if not key.startswith("ssd.")]
