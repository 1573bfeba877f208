"""CRNN and CTC: decoding and probabilities against a sum over all paths."""

from itertools import groupby, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import END, Sequences
from handwriting.models.crnn import CRNN, beam_search, best_paths, character_probabilities, log_probability
from handwriting.utils.errors import UserError

SMALL: dict[str, Any] = {"image_size": (16, 24), "widths": (4, 6, 6), "depths": (1, 2, 1), "hidden": 5}
Labels = tuple[int, ...]


def random_frames(images: int, steps: int, classes: int, sharpness: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(steps)
    logits = sharpness * torch.randn(images, steps, classes + 1, generator=generator, dtype=torch.float64)
    return logits.log_softmax(2)


def brute_force(frames: Tensor) -> dict[Labels, float]:
    """The probability of each sequence of labels: the sum over all paths that collapse to it."""
    steps, symbols = frames.shape
    found: dict[Labels, float] = {}
    paths = list(product(range(symbols), repeat=steps))
    probabilities = frames[torch.arange(steps), torch.tensor(paths)].sum(1).exp().tolist()
    for path, p in zip(paths, probabilities, strict=True):
        labels = tuple(symbol for symbol, _ in groupby(path) if symbol != symbols - 1)
        found[labels] = found.get(labels, 0.0) + p
    return found


def most_probable(every: dict[Labels, float]) -> Labels:
    return max(every, key=lambda labels: every[labels])


def padded(labels: Labels, columns: int) -> Tensor:
    return torch.tensor([[*labels, *[END] * (columns - len(labels))]])


def model(beam: int = 1) -> CRNN:
    return CRNN(2, beam=beam, **SMALL)


@pytest.mark.parametrize(("steps", "classes"), [(1, 2), (4, 2), (5, 3)])
def test_the_probability_of_labels_is_the_sum_over_all_paths(steps: int, classes: int):
    (frames,) = random_frames(1, steps, classes)
    every = brute_force(frames)
    assert sum(every.values()) == pytest.approx(1)
    for labels, p in every.items():
        assert log_probability(frames[None], padded(labels, steps + 2)).exp().item() == pytest.approx(p)


def test_labels_without_a_path_have_no_probability():
    frames = random_frames(1, 3, 2)
    assert log_probability(frames, torch.tensor([[1, 1, END]])).isfinite()
    assert log_probability(frames, torch.tensor([[1, 1, 1]])).item() == -torch.inf
    assert log_probability(frames, torch.tensor([[1, 1, 1]]), zero_infinity=True).item() == 0


def test_greedy_decoding_collapses_the_best_path_and_has_the_probability_of_all_its_paths():
    frames = random_frames(30, 5, 2)
    lengths = set()
    for image, transcript in zip(frames, model().decode({"frames": frames}), strict=True):
        path = image.argmax(1).tolist()
        assert transcript.labels == tuple(symbol for symbol, _ in groupby(path) if symbol != 2)
        assert transcript.probability == pytest.approx(brute_force(image)[transcript.labels])
        lengths.add(len(transcript.labels))
    assert len(lengths) > 2


def test_the_best_path_of_repeated_labels_needs_a_blank_between():
    paths = torch.tensor([[0, 0, 2, 0, 1, 1], [2, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 0, 2]])
    assert best_paths(F.one_hot(paths, 3).float()) == [(0, 0, 1), (), (1,), (0, 1, 0)]


@pytest.mark.parametrize(("steps", "classes", "images"), [(4, 2, 20), (5, 3, 8)])
def test_a_wide_beam_finds_the_most_probable_sequence_of_all(steps: int, classes: int, images: int):
    for image in random_frames(images, steps, classes):
        every = brute_force(image)
        found = beam_search(image.exp().numpy(), beam=1000)
        assert found[0] == most_probable(every)
        likely = [labels for labels, p in every.items() if p > 0.01]
        assert set(likely) <= set(found)


def test_a_beam_decodes_what_the_best_path_misses():
    frames = torch.tensor([[[0.4, 0.0, 0.6], [0.4, 0.0, 0.6]]]).clamp(min=1e-9).log()  # blank blank: 0.36, a: 0.64
    (greedy,), (searched,) = (model(beam).decode({"frames": frames}) for beam in (1, 5))
    assert (greedy.labels, searched.labels) == ((), (0,))
    assert (greedy.probability, searched.probability) == pytest.approx((0.36, 0.64), abs=1e-6)


def test_decoding_with_a_beam_returns_the_true_maximum_and_is_never_worse_than_greedy():
    frames = random_frames(25, 4, 2, sharpness=1)
    better = 0
    for image, greedy, narrow, wide in zip(
        frames, *(model(beam).decode({"frames": frames}) for beam in (1, 2, 100)), strict=True
    ):
        every = brute_force(image)
        assert wide.labels == most_probable(every)
        assert greedy.probability <= narrow.probability + 1e-12 <= wide.probability + 2e-12
        better += wide.probability > greedy.probability + 1e-9
    assert better


def test_the_probability_of_a_character_is_relative_to_all_in_its_place():
    (frames,) = random_frames(1, 5, 3)
    every = brute_force(frames)
    (found,) = character_probabilities([frames[None]], [(0, 2)])
    first = every[0, 2] / sum(every[other, 2] for other in range(3))
    second = every[0, 2] / sum(every[0, other] for other in range(3))
    assert found == pytest.approx((first, second))


def test_merging_rescores_the_candidates_of_all_members_by_their_mean_probability():
    members = random_frames(2, 4, 2)
    every = [brute_force(member) for member in members]
    several = [{"frames": member[None]} for member in members]
    candidates = {labels for member in members for labels in best_paths(member[None])}
    mean = {labels: (every[0].get(labels, 0) + every[1].get(labels, 0)) / 2 for labels in {*every[0], *every[1]}}
    (greedy,), (wide,) = (model(beam).merge(several, [None, None]) for beam in (1, 1000))
    assert greedy.labels == max(candidates, key=lambda labels: mean[labels])
    assert greedy.probability == pytest.approx(mean[greedy.labels])
    assert wide.labels == most_probable(mean)


def test_members_may_have_unequal_numbers_of_frames():
    sure, unsure = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([[0.3, 0.4, 0.3]])
    several = [{"frames": one.clamp(min=1e-9).log()[None]} for one in (sure, unsure)]
    (merged,) = model().merge(several, [None, None])
    assert merged.labels == (0,)
    assert merged.probability == pytest.approx((0.9 + 0.3) / 2, abs=1e-6)


def test_images_without_characters_are_decoded():
    frames = torch.tensor([[[0.1, 0.1, 0.8]]]).log().expand(3, 4, 3)
    assert [(one.labels, one.probabilities) for one in model().decode({"frames": frames})] == [((), ())] * 3


def test_the_loss_is_the_mean_over_the_images_whose_number_has_a_path():
    torch.manual_seed(0)
    net = CRNN(3, **SMALL).eval()  # 6 frames
    images = torch.randn(4, 3, 16, 24)
    labels = torch.tensor([[0, 1, END, END], [2, END, END, END], [1, 1, 1, 1], [END, END, END, END]])
    assert net.fits(labels).tolist() == [True, True, False, True]
    loss, outputs = net.loss(images, Sequences(labels), nn.Identity())
    every = [brute_force(image.detach().double()) for image in outputs["frames"]]
    exact = [every[0][0, 1], every[1][(2,)], every[3][()]]
    assert loss.item() == pytest.approx(-torch.tensor(exact).log().mean().item(), rel=1e-4)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


def test_a_batch_in_which_no_number_fits_has_a_loss_of_zero():
    net = CRNN(3, **SMALL)
    loss, _ = net.loss(torch.randn(2, 3, 16, 24), Sequences(torch.tensor([[1, 1, 1, 1]] * 2)), nn.Identity())
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in net.parameters())


@pytest.mark.parametrize(("labels", "needed"), [((1, 2, 3), 3), ((1, 1), 3), ((1, 1, 1, 2), 6), ((), 0)])
def test_a_number_needs_a_frame_for_each_character_and_between_equal_ones(labels: Labels, needed: int):
    net = CRNN(5, **SMALL)
    for frames in range(8):
        net.frames = frames
        assert net.fits(padded(labels, 6)).item() == (frames >= needed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "frames"), [((64, 160), 40), ((32, 80), 20), ((16, 25), 7), ((5, 1), 1)])
def test_an_image_has_a_frame_for_each_four_columns(channels: int, size: tuple[int, int], frames: int):
    net = CRNN(7, size, channels, widths=(4, 4, 6), depths=(1, 1, 2), hidden=3).eval()
    outputs = net(torch.randn(2, channels, *size))
    assert {name: values.shape for name, values in outputs.items()} == {"frames": (2, frames, 8)}
    assert net.frames == frames
    torch.testing.assert_close(outputs["frames"].exp().sum(2), torch.ones(2, frames))


def test_the_size_follows_from_the_settings():
    convolutions = 9 * (3 * 4 + 4 * 6 + 6 * 6 + 6 * 6) + 2 * (4 + 6 + 6 + 6)
    recurrent = 2 * 4 * 5 * (6 + 5 + 2)
    parameters = sum(weight.numel() for weight in CRNN(10, **SMALL).parameters())
    assert parameters == convolutions + recurrent + (2 * 5 + 6 + 1) * 11


def test_it_learns_a_few_numbers_by_heart():
    torch.manual_seed(0)
    net = CRNN(3, (16, 24), 1, widths=(6, 8, 8), depths=(1, 1, 1), hidden=8)
    images, numbers = torch.randn(5, 1, 16, 24), [(0,), (1, 2), (2, 2), (), (2, 1)]
    labels = torch.cat([padded(number, 2) for number in numbers])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.03)
    for _ in range(60):
        loss, _ = net.loss(images, Sequences(labels), nn.Identity())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [one.labels for one in net.eval().decode(net(images))] == numbers


@pytest.mark.filterwarnings("ignore:The tensor attributes self.recurrent")  # of the LSTM; the export is right
def test_it_is_exported_for_any_number_of_images():
    net = CRNN(**SMALL).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 16, 24),), dynamic_shapes=({0: torch.export.Dim("N")},))
    images = torch.randn(5, 3, 16, 24)
    torch.testing.assert_close(exported.module()(images), net(images))


def test_unequal_lists_are_refused():
    with pytest.raises(UserError, match=r"model\.widths has 2 stages and model.depths 3"):
        CRNN(widths=(4, 6), depths=(1, 1, 1))


def test_with_boxes_the_frames_at_the_centres_learn_the_labels():
    torch.manual_seed(0)
    net = CRNN(3, guide=0.5, **SMALL).eval()
    images, labels = torch.randn(2, 3, 16, 24), torch.tensor([[2, 0], [1, END]])
    boxes = torch.tensor([[[0.0, 0, 6, 8], [12, 4, 24, 12]], [[8, 8, 16, 16], [0, 0, 0, 0]]])
    plain, outputs = net.loss(images, Sequences(labels), nn.CrossEntropyLoss())
    with_boxes, _ = net.loss(images, Sequences(labels, boxes), nn.CrossEntropyLoss())
    frames = outputs["frames"]  # 6 frames of 4 pixels
    expected = -(frames[0, 0, 2] + frames[0, 4, 0] + frames[1, 3, 1]) / 2
    torch.testing.assert_close(with_boxes - plain, 0.5 * expected)
