"""DigitHeads: shapes, loss, and decoding against a sum over all sequences."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handwriting.data.dataset import END, Sequences
from handwriting.models.digit_heads import DigitHeads, most_probable
from handwriting.models.stages import all_maps
from handwriting.training.losses import FocalLoss
from handwriting.utils.errors import UserError

SMALL: dict[str, Any] = {"image_size": (16, 24), "widths": (4, 6), "depths": (1, 2), "features": 8}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 24), (15, 21), (64, 160)])
def test_each_position_has_logits_for_all_classes_and_no_digit(channels, size):
    net = DigitHeads(7, size, channels, max_length=4, widths=(4, 6), depths=(1, 1), features=8).eval()
    outputs = net(torch.randn(2, channels, *size))
    assert {name: values.shape for name, values in outputs.items()} == {"positions": (2, 4, 8)}


@pytest.mark.parametrize("channels", [1, 3])
def test_resnet18_is_a_backbone_for_colour_and_grey(channels: int):
    net = DigitHeads(channels=channels, image_size=(32, 48), backbone="resnet18").eval()
    images = torch.randn(1, channels, 32, 48)
    assert net(images)["positions"].shape == (1, 5, 11)
    torch.testing.assert_close(net(images), net(images.expand(-1, 3, -1, -1)))


def test_attention_weighs_the_features_for_each_position_and_shares_the_classifier():
    net = DigitHeads(max_length=2, **SMALL).eval()
    images = torch.randn(3, 3, 16, 24)
    maps = all_maps(net.stages, images)
    features = net.pyramid(maps[net.first :])
    scores = net.attention(features)
    whole = net.length(maps[-1].mean((2, 3))).view(3, 2, 11)
    for image, place in product(range(3), range(2)):
        weights = scores[image, place].exp() / scores[image, place].exp().sum()
        seen = (features[image] * weights).sum((1, 2))
        expected = net.shared(seen) + whole[image, place]
        torch.testing.assert_close(net(images)["positions"][image, place], expected)


def test_with_boxes_the_attention_learns_where_each_digit_is():
    torch.manual_seed(0)
    net = DigitHeads(max_length=3, guide=2.0, **SMALL).eval()
    images, labels = torch.randn(2, 3, 16, 24), torch.tensor([[4, 7], [1, END]])
    boxes = torch.tensor([[[0.0, 0, 4, 8], [12, 4, 20, 12]], [[8, 8, 16, 16], [0, 0, 0, 0]]])
    criterion = nn.CrossEntropyLoss()
    plain, with_boxes = (net.loss(images, Sequences(labels, some), criterion)[0] for some in (None, boxes))
    attention = net.attention(net.pyramid(all_maps(net.stages, images)[net.first :])).flatten(2).log_softmax(2)
    lost = 0.0
    for image, place in ((0, 0), (0, 1), (1, 0)):
        left, top, right, bottom = boxes[image, place].tolist()
        row, column = (int((one + other) / 2 / net.stride) for one, other in ((top, bottom), (left, right)))
        high, wide = (max((one - other) / net.stride / 6, 0.4) for one, other in ((bottom, top), (right, left)))
        y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
        there = torch.exp(-(((y - row) / high) ** 2 + ((x - column) / wide) ** 2) / 2).flatten()
        lost -= float((there / there.sum() * attention[image, place]).sum())
    assert float(with_boxes - plain) == pytest.approx(2.0 * lost / 6, rel=1e-4)  # the mean over six positions


def brute_force(positions: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of each transcript: the sum over all values of all positions, cut at the first "no digit"."""
    length, classes = positions.shape
    found: dict[tuple[int, ...], float] = {}
    for values in product(range(classes), repeat=length):
        cut = values.index(classes - 1) if classes - 1 in values else length
        p = torch.stack([positions[place, value] for place, value in enumerate(values)]).prod().item()
        found[values[:cut]] = found.get(values[:cut], 0.0) + p
    return found


def test_decoding_finds_the_most_probable_of_all_transcripts_with_its_probability():
    positions = (2 * torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))).double().softmax(2)
    lengths = set()
    for image, transcript in zip(positions, most_probable(positions), strict=True):
        every = brute_force(image)
        assert sum(every.values()) == pytest.approx(1)
        assert transcript.labels == max(every, key=lambda labels: every[labels])
        assert transcript.probability == pytest.approx(every[transcript.labels])
        assert transcript.probabilities == pytest.approx(
            [image[place, label].item() for place, label in enumerate(transcript.labels)]
        )
        lengths.add(len(transcript.labels))
    assert lengths == {0, 1, 2, 3}


def test_a_number_ends_where_the_whole_is_most_probable_not_where_one_position_is():
    positions = torch.tensor([[[0.35, 0.25, 0.4], [0.0, 0.0, 1.0]], [[0.9, 0.0, 0.1], [0.0, 0.95, 0.05]]])
    empty, two = most_probable(positions)
    assert (empty.labels, two.labels) == ((), (0, 1))
    assert two.probability == pytest.approx(0.9 * 0.95)


def test_decode_applies_the_softmax():
    logits = torch.randn(5, 3, 11)
    net = DigitHeads(max_length=3, **SMALL)
    assert net.decode({"positions": logits}) == most_probable(logits.softmax(2))


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), FocalLoss()])
@pytest.mark.parametrize("columns", [1, 2, 3, 6])
def test_the_loss_is_the_criterion_over_all_positions(criterion: nn.Module, columns: int):
    torch.manual_seed(0)
    net = DigitHeads(max_length=3, **SMALL).eval()
    images, labels = torch.randn(3, 3, 16, 24), torch.full((3, columns), END)
    labels[0, 0], labels[1, :2] = 7, torch.tensor([4, 9])[:columns]
    loss, outputs = net.loss(images, Sequences(labels), criterion)
    second = 9 if columns > 1 else 10
    expected = torch.tensor([[7, 10, 10], [4, second, 10], [10, 10, 10]])
    torch.testing.assert_close(loss, criterion(outputs["positions"].reshape(9, 11), expected.flatten()))


def test_numbers_that_do_not_fit_are_left_out_of_the_loss():
    torch.manual_seed(0)
    net = DigitHeads(max_length=2, **SMALL).eval()
    images, labels = torch.randn(3, 3, 16, 24), torch.tensor([[1, END, END], [1, 2, 3], [4, 5, END]])
    assert net.fits(labels).tolist() == [True, False, True]
    kept = torch.tensor([0, 2])
    loss, _ = net.loss(images, Sequences(labels), nn.CrossEntropyLoss())
    alone, _ = net.loss(images[kept], Sequences(labels[kept]), nn.CrossEntropyLoss())
    torch.testing.assert_close(loss, alone)


def test_a_batch_in_which_no_number_fits_has_a_loss_of_zero_and_no_gradient():
    net = DigitHeads(max_length=1, **SMALL)
    loss, _ = net.loss(torch.randn(2, 3, 16, 24), Sequences(torch.tensor([[1, 2], [3, 4]])), nn.CrossEntropyLoss())
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in net.parameters())


def test_merging_averages_the_probabilities():
    net = DigitHeads(max_length=1, num_classes=2, **SMALL)
    first, second = torch.tensor([[[0.6, 0.3, 0.1]]]), torch.tensor([[[0.2, 0.7, 0.1]]])
    several = [{"positions": first.log()}, {"positions": second.log()}]
    (merged,) = net.merge(several, [None, None])
    assert merged.labels == (1,)
    assert merged.probability == pytest.approx(0.5)


def test_networks_of_unequal_lengths_vote():
    net = DigitHeads(max_length=1, num_classes=2, **SMALL)
    short = torch.tensor([[[0.6, 0.3, 0.1]]]).log()
    long = torch.tensor([[[0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]]).log()
    (merged,) = net.merge([{"positions": short}, {"positions": long}], [None, None])
    assert merged.labels == (1,)
    assert merged.probability == pytest.approx(0.9 * 0.9 / 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_learns_a_few_numbers_by_heart(channels: int):
    torch.manual_seed(0)
    net = DigitHeads(4, channels=channels, max_length=2, **SMALL)
    images = torch.randn(6, channels, 16, 24)
    labels = torch.tensor([[0, END], [1, 2], [3, 3], [2, END], [2, 1], [END, END]])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.03)
    for _ in range(60):
        loss, _ = net.loss(images, Sequences(labels), nn.CrossEntropyLoss())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = [one.labels for one in net.eval().decode(net(images))]
    assert found == [(0,), (1, 2), (3, 3), (2,), (2, 1), ()]


def test_it_is_exported_for_any_number_of_images():
    net = DigitHeads(**SMALL).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 16, 24),), dynamic_shapes=({0: torch.export.Dim("N")},))
    images = torch.randn(5, 3, 16, 24)
    torch.testing.assert_close(exported.module()(images), net(images))


def test_unequal_lists_are_refused():
    with pytest.raises(UserError, match=r"model\.widths has 3 stages and model.depths 2"):
        DigitHeads(widths=(4, 6, 8), depths=(1, 1))
