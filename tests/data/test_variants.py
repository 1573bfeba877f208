import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image, ImageDraw

from handwriting.data.dataset import LabelledImages
from handwriting.data.variants import NOTEBOOK, VARIANTS, expand
from handwriting.utils.errors import UserError

SEVEN = ["original", "moved", "moved_diagonally", "turned_left", "turned_right", "smaller", "larger"]
EXTRA = ["wider", "taller", "slanted_left", "slanted_right"]
NUDGES = {"one_pixel_left": (0, -1), "one_pixel_right": (0, 1), "one_pixel_up": (-1, 0), "one_pixel_down": (1, 0)}


def strokes(rng: np.random.Generator, size: int = 28) -> np.ndarray:
    picture = Image.new("L", (size, size))
    pen = ImageDraw.Draw(picture)
    for _ in range(3):
        points = [tuple(point) for point in rng.integers(1, size - 1, (4, 2)).tolist()]
        pen.line(points, fill=int(rng.integers(120, 256)), width=int(rng.integers(1, 4)), joint="curve")
    return np.array(picture)


@pytest.fixture(scope="module")
def dataset() -> LabelledImages:
    """Six images of noise and seven of strokes, so that both have odd and even indices."""
    rng = np.random.default_rng(0)
    pixels = [*rng.integers(0, 256, (6, 28, 28), np.uint8), *(strokes(rng) for _ in range(7))]
    return dataset_of(*pixels)


def dataset_of(*images: np.ndarray) -> LabelledImages:
    return LabelledImages(torch.from_numpy(np.stack(images))[:, None], torch.arange(len(images)) * 3)


def only(image: np.ndarray, variant: str) -> np.ndarray:
    return expand(dataset_of(image), [variant]).images[0, 0].numpy()


def as_the_notebook_has_it(image: np.ndarray, variant: str, number: int) -> np.ndarray:
    """Return a variant by Pillow's scaling and rotation; shifts are computed here."""
    picture = Image.fromarray(image)
    if variant == "original":
        return image
    if variant.startswith("turned"):
        return np.asarray(picture.rotate(10 if variant == "turned_left" else -10))
    if variant == "larger":
        return np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR).crop((2, 2, 30, 30)))
    small = np.zeros((28, 28), np.uint8)
    small[2:26, 2:26] = np.asarray(picture.resize((24, 24), Image.Resampling.BILINEAR))
    down, right = {
        "smaller": [(0, 0)] * 4,
        "moved": [(5, 0), (-5, 0), (0, 5), (0, -5)],
        "moved_diagonally": [(-5, -5), (5, 5), (5, -5), (-5, 5)],
    }[variant][number % 4]
    from_rows, from_columns = (np.arange(28) - down) % 28, (np.arange(28) - right) % 28
    return small[np.ix_(from_rows, from_columns)]


def test_the_seven_are_named_in_the_notebooks_order():
    assert list(NOTEBOOK) == SEVEN
    assert list(VARIANTS) == [*SEVEN, *EXTRA, *NUDGES]


@pytest.mark.parametrize("variant", SEVEN)
def test_a_variant_has_the_notebooks_pixels(dataset, variant):
    made = expand(dataset, [variant]).images[:, 0].numpy()
    for number, image in enumerate(dataset.images[:, 0].numpy()):
        np.testing.assert_array_equal(made[number], as_the_notebook_has_it(image, variant, number))


def test_all_images_are_in_the_first_variant_and_then_all_in_the_second(dataset):
    grown = expand(dataset, SEVEN)
    assert grown.images.shape == (7 * 13, 1, 28, 28)
    assert grown.images.dtype == torch.uint8
    assert grown.labels.tolist() == dataset.labels.tolist() * 7
    for place, variant in enumerate(SEVEN):
        for number, image in enumerate(dataset.images[:, 0].numpy()):
            made = grown.images[place * 13 + number, 0].numpy()
            np.testing.assert_array_equal(made, as_the_notebook_has_it(image, variant, number))


def test_variants_are_in_the_given_order(dataset):
    grown = expand(dataset, ["larger", "original"])
    assert torch.equal(grown.images[:13], expand(dataset, ["larger"]).images)
    assert torch.equal(grown.images[13:], dataset.images)
    assert grown.labels.tolist() == dataset.labels.tolist() * 2


def test_every_variant_differs_from_every_other(dataset):
    grown = expand(dataset, list(VARIANTS)).images.reshape(15, -1)
    assert len(grown.unique(dim=0)) == 15


@pytest.mark.parametrize("variant", NUDGES)
def test_a_nudge_keeps_every_pixel_that_stays_in_the_image(dataset, variant):
    for image in [*dataset.images[:, 0].numpy(), dataset.images[0, 0, :20].numpy()]:
        np.testing.assert_array_equal(only(image, variant), scipy.ndimage.shift(image, NUDGES[variant], order=0))


def test_expanding_twice_gives_the_same_and_does_not_change_the_images(dataset):
    before = dataset.images.clone()
    first, second = expand(dataset, list(VARIANTS)), expand(dataset, list(VARIANTS))
    assert torch.equal(first.images, second.images)
    assert torch.equal(dataset.images, before)


def test_only_the_original_is_the_data_set_itself(dataset):
    assert expand(dataset, ["original"]) is dataset


@pytest.mark.parametrize("variant", ["wider", "taller"])
def test_a_stretched_square_grows_along_one_axis_and_keeps_its_middle(variant):
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 4:24] = 200
    made = only(image, variant).astype(float) / 200
    along, across = (0, 1) if variant == "wider" else (1, 0)  # sums over rows are a profile of columns
    grown, kept = made.sum(along), made.sum(across)
    assert grown.max() == pytest.approx(20, abs=0.1)
    assert kept.max() == pytest.approx(20 * 32 / 28, abs=0.1)
    assert np.flatnonzero(kept > 1).tolist() == list(range(4, 24))
    assert np.flatnonzero(grown > 10).tolist() == list(range(3, 25))
    for profile in (grown, kept):
        assert np.average(np.arange(28), weights=profile) == pytest.approx(13.5, abs=0.01)


def test_taller_is_wider_transposed(dataset):
    for image in dataset.images[:, 0].numpy():
        np.testing.assert_array_equal(only(image, "taller"), only(image.T.copy(), "wider").T)


def test_wider_leaves_a_flat_image_as_it_is():
    image = np.full((28, 28), 77, np.uint8)
    np.testing.assert_array_equal(only(image, "wider"), image)


@pytest.mark.parametrize(("variant", "sign"), [("slanted_right", 1), ("slanted_left", -1)])
def test_a_slanted_bar_leans_about_its_middle(variant, sign):
    image = np.zeros((28, 28), np.uint8)
    image[:, 12:16] = 250
    made = only(image, variant).astype(float)
    middles = made @ np.arange(28) / made.sum(1)
    above_the_middle = 13.5 - np.arange(28)
    np.testing.assert_allclose(middles, 13.5 + sign * 0.2 * above_the_middle, atol=0.03)
    np.testing.assert_allclose(made.sum(1), 4 * 250, atol=5)


def test_slanting_keeps_each_row_in_its_place():
    image = np.zeros((28, 28), np.uint8)
    image[3:8, 8:20] = 255
    for variant in ("slanted_left", "slanted_right"):
        assert np.flatnonzero(only(image, variant).any(1)).tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (105, 105), (20, 32)])
def test_images_keep_any_size(size):
    dataset = dataset_of(*np.random.default_rng(1).integers(1, 256, (5, *size), np.uint8))
    grown = expand(dataset, list(VARIANTS))
    assert grown.images.shape == (75, 1, *size)
    assert grown.images.dtype == torch.uint8
    smaller = grown.images[25:30, 0].numpy()
    assert smaller[:, 2:-2, 2:-2].all()
    smaller[:, 2:-2, 2:-2] = 0
    assert not smaller.any()


def test_the_steps_are_counted_from_the_edges_of_any_size():
    image = np.zeros((32, 32), np.uint8)
    image[15:17, 15:17] = 255
    moved = [only_of(image, "moved", number) for number in range(4)]
    middles = [np.argwhere(made > 60).mean(0).tolist() for made in moved]
    assert middles == [[20.5, 15.5], [10.5, 15.5], [15.5, 20.5], [15.5, 10.5]]


def only_of(image: np.ndarray, variant: str, number: int) -> np.ndarray:
    return expand(dataset_of(*[image] * (number + 1)), [variant]).images[number, 0].numpy()


def test_an_unknown_variant_is_refused_and_all_are_named(dataset, complaint):
    with complaint("augment.variants", "no 'zigzag'", "moved_diagonally", "slanted_right"):
        expand(dataset, ["original", "zigzag"])


def test_a_number_is_no_variant_either(dataset, complaint):
    with complaint("augment.variants has no '1', only original"):
        expand(dataset, [1])  # type: ignore[list-item]


def test_a_misspelt_variant_is_hinted_at(dataset):
    with pytest.raises(
        UserError, match=r"^augment.variants has no 'smaler', only original, .*Did you mean 'smaller'\?$"
    ):
        expand(dataset, ["smaler"])


def test_no_variant_at_all_is_refused(dataset, complaint):
    with complaint("augment.variants is empty", "[original]"):
        expand(dataset, [])


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_channels_of_a_colour_image_are_changed_alike(variant):
    rng = np.random.default_rng(0)
    channels = torch.from_numpy(rng.integers(0, 256, (9, 1, 24, 30), np.uint8)).expand(-1, 3, -1, -1)
    made = expand(LabelledImages(channels.contiguous(), torch.arange(9)), [variant]).images
    assert torch.equal(made[:, 1], made[:, 0])
    assert torch.equal(made[:, 2], made[:, 0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_new_pixels_of_photographs_repeat_the_edge(variant: str):
    wall = torch.tensor([200, 120, 40], dtype=torch.uint8)[None, :, None, None].expand(2, 3, 32, 32)
    images = expand(LabelledImages(wall.contiguous(), torch.tensor([0, 1])), [variant]).images
    torch.testing.assert_close(images, wall)


def test_a_shifted_photograph_is_that_of_scipy():
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    made = expand(LabelledImages(torch.from_numpy(image)[None], torch.tensor([0])), ["one_pixel_left"]).images[0]
    assert np.array_equal(made, scipy.ndimage.shift(image, (0, 0, -1), order=0, mode="nearest"))
