"""What all augmentation steps have in common (seeds, probabilities, ranges), and Augmentation."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from handwriting.data import Augmentation
from handwriting.data.augment import Blur, Erasing, Mixup, Noise, Step, Warp

CPU = torch.device("cpu")
STEPS: dict[str, Callable[..., Step]] = {
    "warp": lambda **more: Warp(degrees=15, scale=0.2, shear=0.2, shift=2, bend=1, **more),
    "erasing": lambda **more: Erasing(smallest=0.3, largest=0.5, **more),
    "noise": lambda **more: Noise(deviation=0.3, **more),
    "blur": lambda **more: Blur(deviation=3.0, **more),
    "mixup": lambda **more: Mixup(alpha=1.0, **more),
}
each_step = pytest.mark.parametrize("name", STEPS)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def some_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded(99))


def some_labels(count: int) -> Tensor:
    return torch.arange(count) % 7


@each_step
def test_the_generator_alone_decides(name):
    images, labels, step = some_images(8, 1, 12, 12), some_labels(8), STEPS[name](probability=1.0)
    torch.manual_seed(1)
    first = step(images, labels, 7, seeded(3))
    expected = torch.rand(3, generator=seeded(1))
    assert torch.equal(torch.rand(3), expected)  # torch's own random state was not touched
    again, other = step(images, labels, 7, seeded(3)), step(images, labels, 7, seeded(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@each_step
def test_the_next_batch_is_changed_in_another_way(name):
    images, labels, step, generator = some_images(8, 1, 12, 12), some_labels(8), STEPS[name](probability=1.0), seeded(3)
    first, second = (step(images, labels, 7, generator)[0] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["warp", "erasing", "noise", "blur"])
def test_equal_images_of_a_batch_become_different_ones(name):
    images = some_images(1, 1, 28, 28).expand(16, -1, -1, -1)
    changed, _ = STEPS[name](probability=1.0)(images, some_labels(16), 7, seeded(0))
    assert len(changed.unique(dim=0)) == 16


@each_step
def test_probability_0_leaves_images_as_they_are(name):
    images, labels = some_images(16, 1, 28, 28), some_labels(16)
    changed, targets = STEPS[name](probability=0.0)(images, labels, 7, seeded(0))
    # Resampling at the same positions rounds in float32.
    torch.testing.assert_close(changed, images, rtol=0, atol=1e-5 if name == "warp" else 0)
    assert torch.equal(targets if targets.ndim == 1 else targets.argmax(1), labels)


@each_step
def test_probability_0_leaves_every_grey_as_it_is(name):
    images = torch.arange(256, dtype=torch.uint8).repeat(2).reshape(2, 1, 16, 16)
    augmentation = Augmentation(steps={"one": STEPS[name](probability=0.0)})
    assert torch.equal(augmentation.vary(images, some_labels(2), 7, seeded(0))[0], images)


@each_step
def test_about_as_many_images_are_changed_as_the_probability_says(name):
    images, labels = some_images(3000, 1, 8, 8), some_labels(3000)

    def changed(probability: float) -> int:
        after, _ = STEPS[name](probability=probability)(images, labels, 7, seeded(5))
        return int(((after - images).abs().amax((1, 2, 3)) > 1e-4).sum())

    at_most = changed(1.0)  # a small blur changes nothing
    assert at_most > 2700
    assert changed(0.3) / at_most == pytest.approx(0.3, abs=0.035)


@each_step
@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (9, 1, 8, 8), (9, 1, 20, 28)])
def test_shape_type_and_range_are_kept_and_the_input_is_not_written_to(name, shape):
    images, labels = some_images(*shape).round(), some_labels(shape[0])
    before = images.clone(), labels.clone()
    changed, targets = STEPS[name](probability=1.0)(images, labels, 7, seeded(0))
    assert (changed.shape, changed.dtype) == (images.shape, torch.float32)
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    if name != "mixup":
        assert targets is labels


def test_without_steps_the_batch_is_handed_on():
    images, labels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), some_labels(3)
    for augmentation in (Augmentation(), Augmentation(steps={}), Augmentation(steps={"a": None, "b": None})):
        handed_on = augmentation.vary(images, labels, 7, seeded(0))
        assert handed_on[0] is images
        assert handed_on[1] is labels


def test_steps_are_taken_in_their_order_and_none_is_left_out():
    taken = []

    def make_step(name: str) -> Step:
        def step(images: Tensor, targets: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
            taken.append((name, images.dtype, images.max().item(), targets.tolist(), classes, generator))
            return images / 2, targets + 1

        return step

    steps = {"b": make_step("b"), "gone": None, "a": make_step("a")}
    generator, images = seeded(0), torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    changed, labels = Augmentation(steps=steps).vary(images, torch.tensor([0, 4]), 7, generator)
    assert taken == [
        ("b", torch.float32, 1.0, [0, 4], 7, generator),
        ("a", torch.float32, 0.5, [1, 5], 7, generator),
    ]
    assert torch.equal(changed, torch.full((2, 1, 4, 4), 64, dtype=torch.uint8))  # 63.75, rounded
    assert labels.tolist() == [2, 6]


def test_what_leaves_the_range_is_cut_off_not_wrapped_around():
    values = torch.tensor([-0.5, -0.001, 0.0, 100.4 / 255, 100.6 / 255, 1.0, 1.01, 2.0]).reshape(1, 1, 2, 4)
    augmentation = Augmentation(steps={"given": lambda images, targets, classes, generator: (values.clone(), targets)})
    changed, _ = augmentation.vary(torch.zeros(1, 1, 2, 4, dtype=torch.uint8), some_labels(1), 7, seeded(0))
    assert changed.dtype == torch.uint8
    assert changed.flatten().tolist() == [0, 0, 0, 100, 101, 255, 255, 255]


def drawn(augmentation: Augmentation, epoch: int) -> list[float]:
    return torch.rand(4, generator=augmentation.generator(epoch, CPU)).tolist()


def test_seed_and_epoch_decide_the_random_numbers():
    streams = [drawn(Augmentation(seed=seed), epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert streams == [drawn(Augmentation(seed=seed), epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert len(set(map(tuple, streams))) == 9


def test_the_random_numbers_of_an_epoch_go_on_from_batch_to_batch():
    augmentation, whole = Augmentation(seed=5), Augmentation(seed=5).generator(1, CPU)
    batches = [drawn(augmentation, 1), drawn(augmentation, 1), drawn(augmentation, 1)]
    assert batches == [torch.rand(4, generator=whole).tolist() for _ in range(3)]
    assert batches[0] != batches[1]
    assert drawn(augmentation, 2) not in batches
    assert drawn(augmentation, 1) == batches[0]  # a restarted epoch begins with the same images


def test_augmentation_draws_other_numbers_than_the_order_of_the_images_does():
    for seed in (0, 1, 2**32 - 1):
        for epoch in (0, 1, 300):
            order = seeded(seed * 1_000_003 + epoch)  # as in handwriting.data.loader
            assert torch.rand(4, generator=order).tolist() != drawn(Augmentation(seed=seed), epoch)


def test_a_largest_rectangle_below_the_smallest_is_refused(complaint):
    with complaint("augment.steps.erasing.largest=0.05 must be a number, at least 0.1 and at most 1"):
        Erasing(largest=0.05)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Warp, {"probability": 0, "knots": 2, "bend": 1, "degrees": 360}),
        (Warp, {"probability": 1, "knots": 100, "bend": 1, "shear": 1, "shift": 30}),
        (Erasing, {"probability": 1, "smallest": 0, "largest": 0}),
        (Erasing, {"probability": 1.0, "smallest": 1, "largest": 1}),
        (Noise, {"probability": 1, "deviation": 0}),
        (Noise, {"probability": 1, "deviation": 3}),
        (Blur, {"probability": 1, "deviation": 0}),
        (Blur, {"probability": 1, "deviation": 4}),
        (Mixup, {"probability": 1, "alpha": 1e-6}),
        (Mixup, {"probability": 1, "alpha": 1e6}),
    ],
)
def test_values_at_the_limits_are_taken(make, settings):
    images, _ = make(**settings)(some_images(4, 1, 8, 8), some_labels(4), 7, seeded(0))
    assert images.isfinite().all()
    assert images.shape == (4, 1, 8, 8)
