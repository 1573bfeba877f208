import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from handwriting.errors import UserError
from handwriting.models.glyph_net import GlyphNet
from handwriting.models.moments import MomentNormalization


def strokes(height: int = 28, width: int = 28) -> torch.Tensor:
    """Two crossed strokes of a pixel's softness, off the middle."""
    image = np.zeros((height, width))
    image[6:18, 9] = image[11, 4:14] = 1.0
    return torch.from_numpy(ndimage.gaussian_filter(image, 0.7))[None, None].float()


def moments(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the ink's places, down and right, as SciPy and NumPy count them."""
    ink = (image - image.min()).numpy().astype(float)
    middle = np.array(ndimage.center_of_mass(ink))
    places = np.indices(ink.shape) - middle[:, None, None]
    return middle, np.sqrt((places**2 * ink).sum((1, 2)) / ink.sum())


@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 28), (32, 48)])
@pytest.mark.parametrize("aspect", [0.0, 0.5, 1.0])
def test_the_ink_comes_to_the_middle_and_to_the_spread(height, width, aspect):
    image = strokes(height, width)
    (made,) = MomentNormalization(0.15, aspect)(image)[:, 0]
    _, before = moments(image[0, 0])
    middle, spread = moments(made)
    np.testing.assert_allclose(middle, [(height - 1) / 2, (width - 1) / 2], atol=0.1)
    side = min(height, width)
    wanted = 0.15 * side * (before / np.sqrt((before**2).mean())) ** (1 - aspect)
    np.testing.assert_allclose(spread, wanted, rtol=0.05)


def test_it_resamples_as_torch_does():
    torch.manual_seed(0)
    images = strokes() * 2 - 0.4  # as a net sees them: the background is not 0
    made = MomentNormalization(0.18, 0.0)(images)
    middle, deviations = moments(images[0, 0])
    scale = float(np.sqrt((deviations**2).mean()) / (0.18 * 28))
    down, right = (middle * 2 + 1) / 28 - 1
    matrix = torch.tensor([[[scale, 0, right], [0, scale, down]]], dtype=torch.float32)
    grid = F.affine_grid(matrix, [1, 1, 28, 28], align_corners=False)
    torch.testing.assert_close(made, F.grid_sample(images + 0.4, grid, align_corners=False) - 0.4, atol=1e-4, rtol=0)


def test_a_sign_moved_or_enlarged_looks_the_same():
    image = strokes()
    larger = F.interpolate(image, scale_factor=1.25, mode="bilinear")[:, :, :28, :28]
    moved = image.roll((4, 7), (2, 3))
    made = MomentNormalization(0.18, 0.5)(torch.cat([image, moved, larger]))
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=0)
    assert (made[2] - made[0]).abs().mean() < 0.02
    assert (larger - image).abs().mean() > 0.04


def test_a_dot_is_not_blown_up_and_nothing_stays_nothing():
    images = torch.zeros(2, 1, 28, 28)
    images[0, 0, 3:5, 3:5] = 1.0
    made = MomentNormalization(0.18, 1.0)(images)
    assert (made[0] > 0.5).sum() <= 36
    assert torch.equal(made[1], images[1])
    assert MomentNormalization(0.18, 1.0)(images.bfloat16()).dtype == torch.bfloat16


def test_each_image_is_normalized_alone():
    torch.manual_seed(0)
    images = torch.rand(5, 1, 28, 28) ** 8
    normalize = MomentNormalization(0.2, 0.5)
    torch.testing.assert_close(normalize(images), torch.cat([normalize(image[None]) for image in images]))


def test_a_net_reads_a_moved_sign_alike_at_the_border_too():
    torch.manual_seed(0)
    net = GlyphNet(5, widths=[4, 6], depths=[1, 1], normalized=1).eval()
    image = strokes()
    torch.testing.assert_close(net(image), net(image.roll((-2, 9), (2, 3))), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"spread": -0.1}, "spread"), ({"spread": 2}, "spread"), ({"spread": 0.2, "aspect": 3}, "aspect")],
)
def test_impossible_sizes_are_refused(settings, said):
    with pytest.raises(UserError, match=rf"model\.{said}="):
        GlyphNet(5, **settings)
