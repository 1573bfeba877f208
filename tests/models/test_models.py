from collections.abc import Callable
from functools import cache
from itertools import pairwise
from math import prod, sqrt

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import LabelledImages
from handwriting.models.ccnet import CCNet
from handwriting.models.layers import activation_and_pooling, make_activation
from handwriting.models.lenet import LeNet
from handwriting.models.net import MLP, Net
from handwriting.runs.config import choices_of, compose_group
from handwriting.runs.instantiate import build_model
from handwriting.utils.errors import UserError

FAMILIES = [Net, MLP, LeNet, CCNet]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def count(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def linear_count(*sizes: int) -> int:
    return sum((before + 1) * after for before, after in pairwise(sizes))


@pytest.mark.parametrize(
    ("family", "settings", "parameters"),
    [
        (Net, {"widths": [32, 64], "hidden": [128]}, 225_034),
        (Net, {"widths": [32, 64, 128], "hidden": [256, 128]}, 159_882),
        (LeNet, {}, 61_706),
        (MLP, {"hidden": [512, 512]}, 669_706),
        (CCNet, {}, 82_300),
        (CCNet, {"as_published": True, "xavier": True}, 82_300),
    ],
)
def test_published_nets_have_their_published_size(family: Callable[..., nn.Module], settings, parameters):
    assert count(family(**settings)) == parameters


@pytest.mark.parametrize("widths", [[5], [8, 3], [4, 6, 9]])
@pytest.mark.parametrize("hidden", [[], [11], [20, 10, 5]])
@pytest.mark.parametrize(("classes", "size"), [(10, (28, 28)), (200, (36, 31))])
def test_the_size_of_net_follows_from_widths_hidden_classes_and_image(widths, hidden, classes, size):
    height, width = size
    for _ in widths:
        height, width = (height - 2) // 2, (width - 2) // 2
    convolutions = sum((9 * before + 1) * after for before, after in pairwise([1, *widths]))
    net = Net(classes, size, widths=widths, hidden=hidden)
    assert count(net) == convolutions + linear_count(widths[-1] * height * width, *hidden, classes)


@pytest.mark.parametrize("hidden", [[], [7], [20, 10, 5]])
def test_the_size_of_mlp_follows_from_its_layers(hidden):
    assert count(MLP(26, (9, 11), hidden=hidden)) == linear_count(99, *hidden, 26)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (33, 20), (12, 47)])
def test_logits_come_out_for_each_image_and_class(family: Callable[..., nn.Module], classes, size):
    logits = family(num_classes=classes, image_size=size)(torch.rand(3, 1, *size))
    assert logits.shape == (3, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_an_image_do_not_depend_on_its_batch(family: Callable[..., nn.Module]):
    net, images = family().eval(), torch.rand(4, 1, 28, 28)
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(net(images), alone)


@pytest.mark.parametrize(
    "make",
    [
        *FAMILIES,
        lambda: Net(widths=[4, 5, 6], hidden=[7, 8], activation="tanh", dropout=0.2),
        lambda: Net(hidden=[]),
        lambda: CCNet(as_published=True, xavier=True),
    ],
)
def test_gradients_reach_every_parameter(make: Callable[[], nn.Module]):
    net = make()
    F.cross_entropy(net(torch.rand(32, 1, 28, 28)), torch.arange(32) % 10).backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.count_nonzero() > 0, name


def conv_pool(images: Tensor, weights: list[Tensor]) -> Tensor:
    return F.max_pool2d(F.relu(F.conv2d(images, weights.pop(0), weights.pop(0))), 2)


def published_net(images: Tensor, weights: list[Tensor]) -> Tensor:
    features = conv_pool(conv_pool(images, weights), weights).flatten(1)
    return F.linear(F.relu(F.linear(features, *weights[:2])), *weights[2:])


def published_mlp(images: Tensor, weights: list[Tensor]) -> Tensor:
    first = F.relu(F.linear(images.flatten(1), *weights[:2]))
    return F.linear(F.relu(F.linear(first, *weights[2:4])), *weights[4:])


def published_lenet(images: Tensor, weights: list[Tensor]) -> Tensor:
    first = F.avg_pool2d(F.conv2d(images, weights[0], weights[1], padding=2).tanh(), 2)
    second = F.avg_pool2d(F.conv2d(first, weights[2], weights[3]).tanh(), 2).flatten(1)
    return F.linear(F.linear(F.linear(second, *weights[4:6]).tanh(), *weights[6:8]).tanh(), *weights[8:])


def published_ccnet(images: Tensor, weights: list[Tensor]) -> Tensor:
    def convolve(images: Tensor) -> Tensor:
        return F.conv2d(images, weights.pop(0), weights.pop(0), padding=1)

    def pool(images: Tensor) -> Tensor:
        return F.relu(F.max_pool2d(images, 3, 2, 1))

    features = pool(convolve(convolve(convolve(pool(convolve(pool(convolve(images))))))))
    return F.linear(features.flatten(1), *weights)


@pytest.mark.parametrize(
    ("family", "published"),
    [(Net, published_net), (MLP, published_mlp), (LeNet, published_lenet), (CCNet, published_ccnet)],
)
def test_each_net_computes_what_is_published(family: Callable[..., nn.Module], published: Callable[..., Tensor]):
    net, images = family().eval(), torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(net(images), published(images, list(net.parameters())))


OFFERED = (
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU ReLU6 SELU "
    "Sigmoid SiLU Softplus Softshrink Softsign Tanh Tanhshrink"
)


@pytest.mark.parametrize("name", OFFERED.split())
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_an_activation_is_found_by_the_name_torch_gives_it_in_any_case(name, case):
    activation = make_activation(case(name))
    assert type(activation) is getattr(nn, name)
    assert activation(torch.randn(2, 3, 4, 4)).shape == (2, 3, 4, 4)


RISE_ONLY = sorted(set(OFFERED.split()) - {"GELU", "Hardswish", "Mish", "PReLU", "RReLU", "SiLU"})


@pytest.mark.parametrize("name", OFFERED.split())
@pytest.mark.parametrize("case", [str, str.lower])
def test_pooling_comes_first_where_that_changes_neither_maps_nor_gradients(name, case):
    modules = activation_and_pooling(case(name))
    assert [type(module) for module in modules] == [nn.MaxPool2d, getattr(nn, name)][:: 1 if name in RISE_ONLY else -1]
    maps = (3 * torch.randn(2, 3, 9, 8, dtype=torch.float64)).requires_grad_()
    expected = F.max_pool2d(getattr(nn, name)().double().eval()(maps), 2)
    found = nn.Sequential(*modules).double().eval()(maps)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((weights * pooled).sum(), maps)[0] for pooled in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", RISE_ONLY)
def test_an_activation_that_is_pooled_first_never_falls(name):
    rising = make_activation(name)(torch.linspace(-30, 30, 100_001, dtype=torch.float64))
    assert rising.diff().min() >= -1e-12


@pytest.mark.parametrize("batch_norm", [False, True])
def test_net_learns_to_the_last_bit_as_if_it_pooled_after_its_activation(batch_norm):
    net = Net(widths=[4, 6], hidden=[5], batch_norm=batch_norm)
    plain = [module for block in net.features.children() for module in block.children()]
    for pool in [index for index, module in enumerate(plain) if isinstance(module, nn.MaxPool2d)]:
        plain[pool : pool + 2] = plain[pool + 1], plain[pool]
    images, labels = torch.randn(16, 1, 28, 28), torch.arange(16) % 10
    gradients = [
        torch.autograd.grad(F.cross_entropy(read(images), labels), list(net.parameters()))
        for read in (net, nn.Sequential(*plain, nn.Flatten(), net.classifier))
    ]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_each_activation_is_a_new_one():
    assert make_activation("prelu") is not make_activation("prelu")


@pytest.mark.parametrize(
    ("name", "nearest"), [("rellu", "ReLU"), ("sigmod", "Sigmoid"), ("TAHN", "Tanh"), ("leaky_relu", "LeakyReLU")]
)
def test_an_unknown_activation_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"model.activation={name} is not .*Did you mean '{nearest}'.*Known: CELU, ELU"):
        make_activation(name)


@pytest.mark.parametrize(
    "name", ["zzz", "", "GLU", "Softmax", "LogSoftmax", "MultiheadAttention", "Threshold", None, 3]
)
def test_what_is_no_elementwise_activation_is_refused(name):
    with pytest.raises(UserError, match=f"model.activation={name} is not") as caught:
        make_activation(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", [Net, MLP, LeNet])
def test_the_configured_activation_is_after_every_hidden_layer(family: Callable[..., nn.Module]):
    net = family(activation="mish")
    kinds = [type(module) for module in net.modules()]
    hidden = sum(kind in (nn.Conv2d, nn.Linear) for kind in kinds) - 1
    assert kinds.count(nn.Mish) == hidden
    assert not {nn.ReLU, nn.Tanh} & set(kinds)
    with pytest.raises(UserError, match=r"model\.activation=mush is not"):
        family(activation="mush")


@pytest.mark.parametrize(("size", "possible"), [((28, 28), 3), ((28, 13), 2), ((9, 28), 1), ((64, 64), 4)])
def test_more_blocks_than_the_image_can_feed_are_refused(size, possible):
    assert Net(image_size=size, widths=[4] * possible)(torch.rand(1, 1, *size)).shape == (1, 10)
    words = f"model.widths has {possible + 1} blocks.* {size[0]}×{size[1]} is too small after {possible}"
    with pytest.raises(UserError, match=words):
        Net(image_size=size, widths=[4] * (possible + 1))


def test_sizes_may_come_as_hydra_gives_them():
    settings = OmegaConf.create({"widths": [32, 64, 128], "hidden": [256, 128]})
    assert count(Net(widths=settings.widths, hidden=settings.hidden)) == 159_882


def kinds_of(net: nn.Module) -> list[type]:
    return [type(module) for module in net.modules() if not list(module.children())]


def test_batch_norm_stands_between_each_convolution_and_its_activation():
    block = [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU]
    net = Net(widths=[8, 16], hidden=[], batch_norm=True)
    assert kinds_of(net) == [*block, *block, nn.Linear]
    assert count(net) == count(Net(widths=[8, 16], hidden=[])) + 2 * 8 + 2 * 16
    net.train()(torch.rand(4, 1, 28, 28))
    moved = [module.running_mean for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(mean is not None and mean.abs().sum() > 0 for mean in moved)


@pytest.mark.parametrize("family", [Net, MLP])
def test_dropout_stands_after_each_hidden_layer(family: Callable[..., nn.Module]):
    net = family(hidden=[16, 8], dropout=0.25)
    layer = [nn.Linear, nn.ReLU, nn.Dropout]
    assert kinds_of(net)[-7:] == [*layer, *layer, nn.Linear]
    assert {module.p for module in net.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert nn.Dropout not in kinds_of(family(hidden=[16, 8]))


@pytest.mark.parametrize("make", [lambda: Net(dropout=0.5), lambda: MLP(dropout=0.5), CCNet])
def test_dropout_acts_in_training_alone(make: Callable[[], nn.Module]):
    net, images = make(), torch.rand(4, 1, 28, 28)
    assert not torch.equal(net.train()(images), net.train()(images))
    assert torch.equal(net.eval()(images), net.eval()(images))


@pytest.mark.parametrize("size", [(11, 28), (28, 5)])
def test_lenet_refuses_images_under_12_by_12(size):
    assert LeNet(image_size=(12, 12))(torch.rand(1, 1, 12, 12)).shape == (1, 10)
    with pytest.raises(UserError, match=f"at least 12×12, not {size[0]}×{size[1]}"):
        LeNet(image_size=size)


def twin(as_published: bool = False, xavier: bool = False) -> CCNet:
    torch.manual_seed(0)
    return CCNet(as_published=as_published, xavier=xavier).eval()


def test_ccnet_as_published_returns_the_softmax_of_its_rectified_logits():
    images = torch.rand(6, 1, 28, 28)
    probabilities, logits = twin(as_published=True)(images), twin()(images)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6))
    torch.testing.assert_close(
        probabilities, logits.clamp(min=0).exp() / logits.clamp(min=0).exp().sum(1, keepdim=True)
    )


def test_xavier_changes_the_weights_of_ccnet_and_nothing_else():
    plain, xavier = twin().state_dict(), twin(xavier=True).state_dict()
    assert plain.keys() == xavier.keys()
    for name in plain:
        assert torch.equal(plain[name], xavier[name]) == name.endswith("bias"), name
        assert plain[name].shape == xavier[name].shape


def test_weights_of_ccnet_follow_the_configured_distribution():
    plain, xavier = twin().state_dict(), twin(xavier=True).state_dict()
    for name in (name for name in plain if name.endswith("weight")):
        shape = plain[name].shape
        fan_in, fan_out = prod(shape[1:]), shape[0] * prod(shape[2:])
        tolerance = 5 / sqrt(2 * plain[name].numel())  # five standard errors of a standard deviation
        assert xavier[name].std().item() == pytest.approx(sqrt(2 / (fan_in + fan_out)), rel=tolerance), name
        assert plain[name].std().item() == pytest.approx(1 / sqrt(3 * fan_in), rel=tolerance), name
        assert xavier[name].abs().max() > sqrt(3) * xavier[name].std()  # normal: it has tails
        assert plain[name].abs().max() <= 1 / sqrt(fan_in)  # torch's default: uniform


BASELINES = {"forest", "knn", "linear", "svm"}
SEQUENCES = {"crnn", "detect_then_read", "detector", "digit_heads", "ssdlite"}  # several characters in an image
NETWORKS = sorted(set(choices_of("model")) - BASELINES - SEQUENCES)


compose = cache(compose_group)


def made(model: str, size: tuple[int, int], channels: int) -> nn.Module:
    return build_model(compose("model", model), 7, size, channels)


@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_sees_all_channels_of_colour_images(model: str):
    net, grey = made(model, (32, 32), 3).eval(), made(model, (32, 32), 1)
    first = next(weight for weight in grey.parameters())  # of the first layer, whose inputs are three times as many
    assert count(net) == count(grey) + 2 * first.numel()
    images = torch.rand(2, 3, 32, 32)
    logits = net(images)
    assert logits.shape == (2, 7)
    for channel in range(3):
        changed = images.clone()
        changed[:, channel] = 0
        assert not torch.allclose(net(changed), logits, atol=1e-7), channel


SMALLEST = {"char_net_v1": 16, "lenet": 12, "net": 10, "net_deep": 22, "net_sigmoid": 10, "quick_net": 12, "vgg": 16}


@pytest.mark.parametrize("model", NETWORKS)
def test_images_from_8_to_128_pixels_work_or_are_refused_before_training(model: str):
    smallest = SMALLEST.get(model, 8)
    with torch.device("meta"):  # shapes only
        for size in ((smallest, smallest), (smallest, 128), (127, smallest + 1), (128, 128)):
            assert made(model, size, 3).train()(torch.zeros(2, 3, *size)).shape[-2:] == (2, 7)
        for size in ((smallest - 1, 128), (128, smallest - 1)) if smallest > 8 else ():
            with pytest.raises(UserError, match=f"{size[0]}×{size[1]}"):
                made(model, size, 3)


@pytest.mark.parametrize(("model", "features"), [*((model, "pixels") for model in sorted(BASELINES)), ("knn", "hog")])
def test_every_baseline_learns_colour_images(model: str, features: str):
    images, labels = torch.randint(100, (30, 3, 9, 8), dtype=torch.uint8), torch.arange(30) % 3
    images[labels == 1, :, 4:] += 150
    images[labels == 2, :, :, 4:] += 150
    baseline = build_model(compose("model", model) | {"features": features}, 3, (9, 8), 3)
    baseline.fit(LabelledImages(images, labels))
    assert (baseline.predict_proba(images).argmax(1) == labels).float().mean() > 0.9
