import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handwriting.models.glyph_net import Blur, Branch, GlyphNet
from handwriting.utils.errors import UserError


def test_the_size_follows_from_widths_depths_and_classes():
    net = GlyphNet(194, widths=[8, 12], depths=[2, 3])
    convolutions = 9 * (1 * 8 + 8 * 8) + 2 * 8 * 2 + 9 * (8 * 12 + 2 * 12 * 12) + 3 * 12 * 2
    assert sum(weight.numel() for weight in net.parameters()) == convolutions + 2 * 24 + 25 * 194


def test_it_computes_stages_residuals_and_both_poolings():
    torch.manual_seed(0)
    net = GlyphNet(7, widths=[4, 6], depths=[1, 2]).eval()
    first, gain1, shift1, second, gain2, shift2, third, gain3, shift3, gain, shift, weight, bias = net.parameters()

    def norm(x: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, torch.zeros(len(gain)), torch.ones(len(gain)), gain, shift)

    images = torch.randn(3, 1, 28, 28)
    x = F.relu(norm(F.conv2d(images, first, padding=1), gain1, shift1))
    x = F.relu(norm(F.conv2d(F.max_pool2d(x, 2), second, padding=1), gain2, shift2))
    x = F.relu(x + norm(F.conv2d(x, third, padding=1), gain3, shift3))
    pooled = torch.cat([x.flatten(2).mean(2), x.flatten(2).max(2).values], 1)
    torch.testing.assert_close(net(images), F.linear(norm(pooled, gain, shift), weight, bias))


def test_blurred_pooling_is_that_of_torchs_own_pieces():
    torch.manual_seed(0)
    net = GlyphNet(5, widths=[4, 6], depths=[1, 1], pooling="blur").eval()
    first, gain1, shift1, second, gain2, shift2, gain, shift, weight, bias = net.parameters()

    def norm(x: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, torch.zeros(len(gain)), torch.ones(len(gain)), gain, shift)

    images = torch.randn(3, 1, 28, 28)
    x = F.max_pool2d(F.relu(norm(F.conv2d(images, first, padding=1), gain1, shift1)), 2, stride=1)  # 27×27
    twice = F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2, stride=1), 2, stride=1)  # a binomial filter
    assert twice.shape[2:] == (27, 27)
    x = F.relu(norm(F.conv2d(twice[:, :, ::2, ::2], second, padding=1), gain2, shift2))
    pooled = torch.cat([x.flatten(2).mean(2), x.flatten(2).max(2).values], 1)
    torch.testing.assert_close(net(images), F.linear(norm(pooled, gain, shift), weight, bias))


@pytest.mark.parametrize("pooling", ["max", "blur"])
@pytest.mark.parametrize("size", [(28, 28), (33, 20), (5, 4)])
def test_each_pooling_halves_the_maps(pooling, size):
    net = GlyphNet(5, size, widths=[4, 4, 6], depths=[2, 1, 1], pooling=pooling)
    (branch,) = net.branches.children()
    assert isinstance(branch, Branch)
    maps = branch.stages(torch.randn(2, 1, *size))
    assert maps.shape == (2, 6, size[0] // 4, size[1] // 4)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_blur_pooling_makes_logits_less_sensitive_to_a_shift_by_a_pixel(activation):
    def change(pooling: str) -> float:
        torch.manual_seed(0)
        net = GlyphNet(5, widths=[8, 8, 8], depths=[2, 1, 1], activation=activation, pooling=pooling).eval()
        images = torch.zeros(50, 1, 28, 28)
        images[:, :, 6:20, 6:20] = torch.rand(50, 1, 14, 14)
        here, there = net(images), net(images.roll((1, 1), (2, 3)))
        return ((here - there).norm() / here.std(0).norm()).item()

    assert change("blur") < 0.8 * change("max")


@pytest.mark.parametrize(("dtype", "full"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_blurring_computes_in_full_precision_and_answers_in_that_of_its_maps(dtype: torch.dtype, full: torch.dtype):
    maps = torch.randn(2, 3, 7, 7).to(dtype).requires_grad_()
    exact = maps.detach().to(full).requires_grad_()
    line = torch.tensor([0.25, 0.5, 0.25], dtype=full)
    expected = F.conv2d(exact, torch.outer(line, line).repeat(3, 1, 1, 1), stride=2, padding=1, groups=3)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        blurred = Blur(3)(maps)
    upstream = torch.randn(blurred.shape).to(dtype)
    (gradient,) = torch.autograd.grad(blurred, maps, upstream)
    (exact_gradient,) = torch.autograd.grad(expected, exact, upstream.to(full))
    assert blurred.dtype == dtype
    assert torch.equal(blurred, expected.to(dtype))
    assert torch.equal(gradient, exact_gradient.to(dtype))


def test_the_blur_filter_is_not_in_the_checkpoint():
    blurred, pooled = GlyphNet(5, pooling="blur"), GlyphNet(5)
    assert blurred.state_dict().keys() == pooled.state_dict().keys()


def test_logits_do_not_depend_on_the_position_of_a_character():
    net = GlyphNet(5, widths=[4], depths=[1]).eval()
    here, there = torch.zeros(2, 1, 28, 28)
    here[:, 5:9, 5:9] = there[:, 15:19, 12:16] = torch.rand(4, 4)
    torch.testing.assert_close(net(here[None]), net(there[None]))


def test_the_answer_is_the_mean_of_the_branches_and_training_sees_each():
    torch.manual_seed(0)
    net = GlyphNet(5, branches=3, widths=[4], depths=[2])
    images = torch.randn(6, 1, 28, 28)
    each = torch.stack([branch(images) for branch in net.branches])
    torch.testing.assert_close(net.train()(images), each)
    net.eval()
    torch.testing.assert_close(net(images), torch.stack([branch(images) for branch in net.branches]).mean(0))
    assert not torch.allclose(each[0], each[1])


def test_heads_divide_after_the_shared_stages():
    torch.manual_seed(0)
    net = GlyphNet(5, branches=3, shared=1, widths=[4, 6], depths=[2, 3])
    trunk, branch = 9 * (4 + 4 * 4) + 2 * 2 * 4, 9 * (4 * 6 + 2 * 6 * 6) + 3 * 2 * 6 + 2 * 12 + 13 * 5
    assert sum(weight.numel() for weight in net.parameters()) == trunk + 3 * branch
    images = torch.randn(6, 1, 28, 28)
    logits = net(images)
    assert logits.shape == (3, 6, 5)
    alone = GlyphNet(5, branches=1, widths=[4, 6], depths=[2, 3])  # the trunk and the second branch in one
    alone.load_state_dict(
        {
            **{f"branches.0.stages.{name}": value for name, value in net.trunk.state_dict().items()},
            **{_moved(name): value for name, value in net.branches[1].state_dict().items()},
        }
    )
    torch.testing.assert_close(logits[1], alone(images))


def _moved(name: str) -> str:
    return "branches.0." + name.replace("stages.0.", "stages.1.", 1)


def test_the_margin_is_ignored():
    torch.manual_seed(0)
    net = GlyphNet(5, widths=[4, 6], depths=[1, 2], margin=3).eval()
    whole = GlyphNet(5, (22, 22), widths=[4, 6], depths=[1, 2]).eval()
    whole.load_state_dict(net.state_dict())
    images = torch.randn(6, 1, 28, 28)
    torch.testing.assert_close(net(images), whole(images[:, :, 3:-3, 3:-3]))
    torch.testing.assert_close(net(images), net(F.pad(images[:, :, 3:-3, 3:-3], (3, 3, 3, 3), value=9.0)))


def test_every_parameter_learns():
    net = GlyphNet(5, widths=[4, 6], depths=[2, 2], dropout=0.1)
    net(torch.randn(8, 1, 28, 28)).logsumexp(1).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters())


@pytest.mark.parametrize("size", [(28, 28), (33, 20), (4, 4)])
def test_images_of_other_sizes_are_accepted(size):
    assert GlyphNet(7, size)(torch.randn(2, 1, *size)).shape == (2, 7)


def test_dropout_and_activation_are_those_configured():
    net = GlyphNet(activation="gelu", dropout=0.3)
    assert [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)] == [0.3]
    assert sum(isinstance(layer, nn.GELU) for layer in net.modules()) == 7
    assert not any(isinstance(layer, nn.ReLU) for layer in net.modules())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"widths": [8, 8], "depths": [1]}, "model.widths has 2 stages and model.depths 1"),
        ({"widths": [8] * 6, "depths": [1] * 6}, "an image of 28×28 is too small"),
        ({"margin": 13}, "28×28 without its margin of 13 is too small .* make the margin smaller"),
        ({"shared": 3}, "model.shared=3"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        GlyphNet(**settings)
