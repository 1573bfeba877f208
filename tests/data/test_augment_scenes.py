"""Augmentation of photographs: boxes against an independent warp of their corners, labels, colours, views."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from handwriting.data import Augmentation, LabelledImages
from handwriting.data.augment import Blur, Erasing, Mixup, Noise, Step, Warp
from handwriting.data.augment_scenes import Colour, CutPaste, Inversion, SceneWarp
from handwriting.data.dataset import END, Sequences

HEIGHT, WIDTH = 48, 120
STRONG = {"zoom": 0.4, "aspect": 0.2, "degrees": 12, "shear": 0.2, "perspective": 0.15, "shift": 0.3}
STEPS: dict[str, Callable[..., Step]] = {
    "warp": lambda **more: SceneWarp(**STRONG, **more),
    "colour": lambda **more: Colour(brightness=0.2, contrast=0.4, saturation=0.5, hue=180, **more),
    "inversion": Inversion,
    "cut_paste": CutPaste,
    "blur": lambda **more: Blur(deviation=2.0, **more),
    "noise": lambda **more: Noise(deviation=0.2, **more),
    "erasing": lambda **more: Erasing(fill="colour", **more),
}
each_step = pytest.mark.parametrize("name", STEPS)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def scenes(count: int, seed: int = 0) -> tuple[Tensor, Sequences]:
    """Return smooth colour images of 1 to 3 characters, each in a box of its own."""
    random = seeded(seed)
    coarse = torch.rand(count, 3, 6, 15, generator=random)
    images = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    present = torch.arange(4) < torch.randint(1, 4, (count, 1), generator=random)
    labels = torch.randint(10, (count, 4), generator=random).masked_fill(~present, END)
    left = 8 + 28 * torch.arange(4) + 6 * torch.rand(count, 4, generator=random)
    top = 2 + 20 * torch.rand(count, 4, generator=random)
    size = 14 + 4 * torch.rand(2, count, 4, generator=random)
    boxes = torch.stack([left, top, left + size[0], top + size[1]], 2) * present[..., None]
    return images, Sequences(labels, boxes)


def boxes_in(targets: object) -> Tensor:
    assert isinstance(targets, Sequences)
    assert targets.boxes is not None
    return targets.boxes


@each_step
def test_the_generator_alone_decides(name: str):
    (images, targets), step = scenes(12), STEPS[name](probability=0.7)
    torch.manual_seed(1)
    first, again, other = (step(images, targets, 10, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), torch.rand(3, generator=seeded(1)))  # torch's own random state was not touched
    assert torch.equal(first[0], again[0])
    assert torch.equal(boxes_in(first[1]), boxes_in(again[1]))
    assert not torch.equal(first[0], other[0])


@each_step
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_range_and_input_are_kept(name: str, channels: int):
    images, targets = scenes(12)
    images = images[:, :channels]
    before = images.clone(), targets.labels.clone(), boxes_in(targets).clone()
    changed, after = STEPS[name](probability=1.0)(images, targets, 10, seeded(0))
    assert (changed.shape, changed.dtype) == (images.shape, torch.float32)
    assert changed.min() >= -1e-5
    assert changed.max() <= 1 + 1e-5
    assert not torch.equal(changed, images)
    assert isinstance(after, Sequences)
    assert torch.equal(after.labels == END, targets.labels == END)
    for tensor, copy in zip((images, targets.labels, boxes_in(targets)), before, strict=True):
        assert torch.equal(tensor, copy)


@each_step
def test_probability_0_leaves_images_and_targets_as_they_are(name: str):
    images, targets = scenes(12)
    changed, after = STEPS[name](probability=0.0)(images, targets, 10, seeded(0))
    torch.testing.assert_close(changed, images, rtol=0, atol=1e-4 if name == "warp" else 0)
    assert isinstance(after, Sequences)
    assert torch.equal(after.labels, targets.labels)
    torch.testing.assert_close(boxes_in(after), boxes_in(targets), rtol=0, atol=1e-4)


@each_step
def test_about_as_many_images_are_changed_as_the_probability_says(name: str):
    images, targets = scenes(500)

    def changed(probability: float) -> int:
        after, _ = STEPS[name](probability=probability)(images, targets, 10, seeded(5))
        return int(((after - images).abs().amax((1, 2, 3)) > 1e-3).sum())

    assert changed(0.3) / changed(1.0) == pytest.approx(0.3, abs=0.07)


@each_step
def test_labels_of_single_characters_pass_through(name: str):
    images, labels = scenes(8)[0][..., :HEIGHT], torch.arange(8)
    changed, after = STEPS[name](probability=1.0)(images, labels, 10, seeded(0))
    assert after is labels
    assert torch.equal(changed, images) == (name == "cut_paste")


def points(at: Tensor) -> Tensor:
    """Return images with a Gaussian spot at each place (B, 2), x and y in pixels."""
    x, y = torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5
    across = torch.exp(-((x - at[:, :1]) ** 2) / 8)
    down = torch.exp(-((y - at[:, 1:]) ** 2) / 8)
    return (down[:, :, None] * across[:, None, :])[:, None]


def spots(images: Tensor) -> np.ndarray:
    """Return the centre of mass of each image, x and y in pixels, (B, 2)."""
    mass = images[:, 0].numpy().astype(float)
    total = mass.sum((1, 2))
    return (
        np.stack([mass.sum(1) @ (np.arange(WIDTH) + 0.5), mass.sum(2) @ (np.arange(HEIGHT) + 0.5)], 1) / total[:, None]
    )


@pytest.mark.parametrize("amounts", [*({name: amount} for name, amount in STRONG.items()), STRONG], ids=str)
def test_a_new_box_is_the_smallest_around_the_four_warped_corners(amounts: dict[str, float]):
    count, step = 40, SceneWarp(**amounts)
    middle = torch.tensor([WIDTH, HEIGHT]) / 2 + 12 * (torch.rand(count, 2, generator=seeded(7)) - 0.5)
    half = 4 + 4 * torch.rand(count, 2, generator=seeded(8))
    targets = Sequences(torch.zeros(count, 1, dtype=torch.int64), torch.cat([middle - half, middle + half], 1)[:, None])
    corners = [
        spots(step(points(middle + half * torch.tensor(way)), targets, 10, seeded(2))[0])
        for way in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    found = boxes_in(step(points(middle), targets, 10, seeded(2))[1])[:, 0].numpy()
    expected = np.concatenate([np.min(corners, 0), np.max(corners, 0)], 1)
    whole = (np.array(corners) > 6).all((0, 2)) & (np.array(corners) < [WIDTH - 6, HEIGHT - 6]).all((0, 2))
    assert whole.sum() > 10  # the others have spots that are cut off, or smeared by the edge
    np.testing.assert_allclose(found[whole], expected[whole], atol=0.15)
    before = boxes_in(targets)[:, 0].numpy()
    assert np.abs(found - before).max() > 1, "nothing moved"


def test_all_characters_stay_in_the_image():
    images, targets = scenes(200)
    amounts = STRONG | {"zoom": 1.5, "shift": 1.0}
    moved = boxes_in(SceneWarp(**amounts)(images, targets, 10, seeded(0))[1])[targets.labels != END]
    assert moved.min() >= -1e-3
    assert (moved[:, 2] <= WIDTH + 1e-3).all()
    assert (moved[:, 3] <= HEIGHT + 1e-3).all()
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert moved[:, 0].std() > 20  # the numbers are moved far


@pytest.mark.parametrize("kind", ["labels", "sequences without boxes", "no character"])
def test_where_characters_are_unknown_the_middle_of_the_image_stays(kind: str):
    middle = torch.tensor([WIDTH, HEIGHT]) / 2
    targets = {
        "labels": torch.zeros(30, dtype=torch.int64),
        "sequences without boxes": Sequences(torch.zeros(30, 3, dtype=torch.int64)),
        "no character": Sequences(torch.full((30, 3), END), torch.zeros(30, 3, 4)),
    }[kind]
    step = SceneWarp(zoom=0.2, shift=1.0)
    for corner in ((0.25, 0.25), (0.75, 0.75)):
        at = (corner[0] * WIDTH, corner[1] * HEIGHT)
        found = spots(step(points(torch.tensor([at]).expand(30, 2)), targets, 10, seeded(0))[0])
        assert (found > 0).all()
        assert (found < [WIDTH, HEIGHT]).all()
        assert found.std(0).min() > 1
    seen = step(points(middle.expand(30, 2)), targets, 10, seeded(0))[0]
    assert seen.amax((1, 2, 3)).min() > 0.8


def test_pixels_from_outside_repeat_the_edge():
    images = torch.full((20, 3, HEIGHT, WIDTH), 0.7)
    changed, _ = SceneWarp(**STRONG)(images, torch.zeros(20, dtype=torch.int64), 10, seeded(0))
    torch.testing.assert_close(changed, images)


def test_colours_change_as_by_the_formulas():
    """Against numpy, one amount at a time: the formula's only unknown, the amount, is within its limits and even."""
    images = 0.4 + 0.2 * scenes(60)[0][:, :, ::6, ::6]  # nothing is cut off
    pixels, nothing = images.double().numpy(), torch.zeros(60)
    mean, grey = pixels.mean((2, 3), keepdims=True), pixels.mean(1, keepdims=True)
    for amount, origin in (("contrast", mean), ("saturation", grey)):
        changed = Colour(**{amount: 0.4})(images, nothing, 10, seeded(1))[0].double().numpy()
        factors = ((changed - origin) * (pixels - origin)).sum((1, 2, 3)) / ((pixels - origin) ** 2).sum((1, 2, 3))
        np.testing.assert_allclose(changed, origin + factors[:, None, None, None] * (pixels - origin), atol=1e-5)
        assert np.abs(np.log(factors)).max() <= 0.4
        assert np.abs(np.log(factors).mean()) < 0.1
        assert np.log(factors).std() == pytest.approx(0.4 / 3**0.5, rel=0.2)
    shifts = Colour(brightness=0.3)(images, nothing, 10, seeded(1))[0].double().numpy() - pixels
    np.testing.assert_allclose(
        shifts, shifts.mean((1, 2, 3), keepdims=True).repeat(3, 1).repeat(8, 2).repeat(20, 3), atol=1e-5
    )
    assert 0.25 < np.abs(shifts).max() <= 0.3


def test_hue_rotates_colours_about_the_grey_axis():
    images = 0.4 + 0.2 * scenes(60)[0][:, :, ::6, ::6]
    changed = Colour(hue=180)(images, torch.zeros(60), 10, seeded(1))[0]
    torch.testing.assert_close(changed.mean(1), images.mean(1))
    torch.testing.assert_close(changed.square().sum(1), images.square().sum(1))  # a rotation
    third = Colour(hue=120)._mixing(3, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))[0]
    torch.testing.assert_close(third @ torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.2, 0.9, 0.5]))


def test_an_inverted_image_is_its_negative():
    images, targets = scenes(4)
    assert torch.equal(Inversion(1.0)(images, targets, 10, seeded(0))[0], 1 - images)


def same_sized_scenes(count: int) -> tuple[Tensor, Sequences]:
    """Return noise images of medium grey with boxes of one size at whole pixels, so that a copy is exact."""
    images, targets = scenes(count)
    images = 0.4 + 0.2 * torch.rand(images.shape, generator=seeded(1))
    corner = boxes_in(targets)[..., :2].round()
    boxes = torch.cat([corner, corner + torch.tensor([14.0, 18.0])], 2) * (targets.labels != END)[..., None]
    return images, Sequences(targets.labels, boxes)


def test_cut_and_paste_copies_a_character_and_its_label_over_another():
    images, targets = same_sized_scenes(40)
    changed, after = CutPaste(1.0)(images, targets, 10, seeded(0))
    assert isinstance(after, Sequences)
    assert torch.equal(boxes_in(after), boxes_in(targets))

    def crops(some: Tensor) -> dict[tuple[int, int], Tensor]:
        whole = [(image, place) for image, place in (targets.labels != END).nonzero().tolist()]
        cut = {}
        for image, place in whole:
            left, top = boxes_in(targets)[image, place, :2].int().tolist()
            cut[image, place] = some[image, :, top : top + 18, left : left + 14]
        return cut

    before, pasted, sources = crops(images), crops(changed), set()
    for image in range(40):
        (place,) = [place for i, place in before if i == image and not torch.equal(before[i, place], pasted[i, place])]
        mine = pasted[image, place]
        difference = {key: mine - cut for key, cut in before.items()}
        matches = [key for key, by in difference.items() if (by - by.mean((1, 2), keepdim=True)).abs().max() < 1e-4]
        (source,) = matches
        torch.testing.assert_close(mine.mean((1, 2)), before[image, place].mean((1, 2)), rtol=0, atol=0.01)
        assert after.labels[image, place] == targets.labels[source]
        others = torch.arange(4) != place
        assert torch.equal(after.labels[image, others], targets.labels[image, others])
        sources.add(source[0])
    assert len(sources) > 30


def test_what_is_pasted_keeps_to_its_box():
    images, targets = same_sized_scenes(40)
    changed, _ = CutPaste(1.0)(images, targets, 10, seeded(0))
    for image in range(40):
        rows, columns = ((changed - images)[image].abs().amax(0) > 0).nonzero().unbind(1)
        edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        nearest = (boxes_in(targets)[image] - edges).abs().amax(1).min()
        assert nearest <= 3  # 15 % of 18 pixels: the soft edge


def test_characters_that_would_be_stretched_far_are_not_pasted():
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=seeded(0))
    boxes = torch.tensor([[[10.0, 10, 40, 30]], [[10, 10, 20, 30]]])  # 3 times as wide
    targets = Sequences(torch.tensor([[1], [2]]), boxes)
    for seed in range(5):  # the partner of an image may be the image itself
        changed, after = CutPaste(1.0)(images, targets, 10, seeded(seed))
        torch.testing.assert_close(changed, images)
        assert torch.equal(after.labels, targets.labels)  # type: ignore[union-attr]


def test_a_rectangle_is_filled_with_one_colour_for_each_image():
    images = torch.rand(20, 3, HEIGHT, WIDTH, generator=seeded(0))
    changed, _ = Erasing(1.0, 0.2, 0.3, fill="colour")(images, torch.zeros(20), 10, seeded(0))
    colours = set()
    for before, after in zip(images, changed, strict=True):
        gone = (before != after).all(0)
        assert gone.sum() > 10
        assert torch.equal(before[:, ~gone], after[:, ~gone])
        (colour,) = after[:, gone].unique(dim=1).T
        colours.add(tuple(colour.tolist()))
    assert len(colours) == 20


def test_a_batch_ends_with_boxes_in_the_image_and_none_without_a_label():
    images, targets = scenes(20)

    def far(pixels: Tensor, targets: Sequences, classes: int, generator: Generator) -> tuple[Tensor, Sequences]:
        return pixels, Sequences(targets.labels, boxes_in(targets) + torch.tensor([-40.0, -30, 40, 30]))

    changed, after = Augmentation(steps={"far": far}).vary((images * 255).byte(), targets, 10, seeded(0))  # type: ignore
    found = boxes_in(after)
    assert changed.dtype == torch.uint8
    assert not found[targets.labels == END].any()
    first = found[:, 0]
    expected = (boxes_in(targets)[:, 0] + torch.tensor([-40.0, -30, 40, 30])).clamp(min=0)
    torch.testing.assert_close(first, expected.minimum(torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])))


def varied(**steps: Step) -> Augmentation:
    return Augmentation(steps=steps, seed=3)


def test_a_view_comes_with_the_map_back_to_its_image():
    at = torch.tensor([WIDTH, HEIGHT]) * (0.35 + 0.3 * torch.rand(30, 2, generator=seeded(0)))
    images = (points(at) * 255).byte()
    (first, none), *others = varied(colour=Colour(contrast=0.1), warp=SceneWarp(**STRONG)).scene_views(images, 4)
    assert first is images
    assert none is None
    assert len(others) == 3
    for view, back in others:
        assert back is not None
        assert (view.dtype, back.shape, back.dtype) == (torch.uint8, (30, 3, 3), torch.float32)
        seen = spots((view.float() - view.float().amin((1, 2, 3), keepdim=True)).clamp(min=0))
        mapped = np.einsum("bij,bj->bi", back.double().numpy(), np.column_stack([seen, np.ones(30)]))
        assert np.abs(seen - at.numpy()).max() > 5
        np.testing.assert_allclose(mapped[:, :2] / mapped[:, 2:], at.numpy(), atol=0.4)


def test_the_same_images_have_the_same_views_and_each_view_is_another():
    images = (scenes(5)[0] * 255).byte()
    once, again = (list(varied(warp=SceneWarp(**STRONG)).scene_views(images, 3)) for _ in range(2))
    for (view, back), (other, other_back) in zip(once[1:], again[1:], strict=True):
        assert torch.equal(view, other)
        assert torch.equal(back, other_back)  # type: ignore[arg-type]
    assert len({view.numpy().tobytes() for view, _ in once}) == 3


def test_views_that_are_not_moved_are_mapped_to_themselves():
    images = (scenes(5)[0] * 255).byte()
    _, (view, back) = varied(inversion=Inversion(1.0), paste=CutPaste(1.0)).scene_views(images, 2)
    assert torch.equal(view, 255 - images)
    torch.testing.assert_close(back, torch.eye(3).expand(5, 3, 3))


def test_what_makes_no_views_is_refused(complaint):
    images = (scenes(2)[0] * 255).byte()
    assert len(list(Augmentation().scene_views(images, 1))) == 1
    with complaint("tta.views=2 is more than the 1 that this augmentation makes of an image"):
        list(Augmentation().scene_views(images, 2))
    with complaint("augment.variants=[original,turned_left] are of single characters"):
        list(Augmentation(["original", "turned_left"]).scene_views(images, 2))


@pytest.mark.parametrize(
    ("step", "sentence"),
    [(Warp(degrees=5), "moves the image but not the boxes"), (Mixup(), "blends images of one character each")],
)
def test_steps_for_single_characters_refuse_boxes(step: Step, sentence: str, complaint):
    images, targets = scenes(3)
    with complaint(sentence):
        Augmentation(steps={"one": step}).vary((images * 255).byte(), targets, 10, seeded(0))


def test_offline_variants_are_refused_for_sequences(complaint):
    images, (labels, boxes) = scenes(3)
    dataset = LabelledImages((images * 255).byte(), labels, boxes)
    assert Augmentation().expand(dataset) is dataset
    with complaint("augment.variants=[original,smaller] are of single characters"):
        Augmentation(["original", "smaller"]).expand(dataset)


def test_a_warp_without_boxes_to_move_is_taken():
    images, (labels, _) = scenes(3)
    changed, after = Warp(degrees=5)(images, Sequences(labels), 10, seeded(0))
    assert isinstance(after, Sequences)
    assert not torch.equal(changed, images)
