from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handwriting.training.optim import Muon, orthogonalize

RATES: dict[str, Any] = {"lr": 0.03, "weight_decay": 0.2}


def walked(make, weight: Tensor, steps: int = 4) -> Tensor:
    """Take some steps along the same gradients with any optimizer, and return where they led."""
    random = torch.Generator().manual_seed(1)
    parameter = nn.Parameter(weight.clone())
    optimizer = make([parameter])
    for _ in range(steps):
        parameter.grad = torch.randn(weight.shape, generator=random, dtype=weight.dtype)
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(5,), ()])
def test_weights_of_one_axis_go_as_adamw_takes_them(shape: tuple[int, ...]):
    weight = torch.ones(shape)
    ours = walked(lambda p: Muon(p, betas=(0.8, 0.9), **RATES), weight)
    torch.testing.assert_close(ours, walked(lambda p: torch.optim.AdamW(p, betas=(0.8, 0.9), **RATES), weight))


@pytest.mark.parametrize("shape", [(6, 6), (4, 30), (30, 4)])
def test_matrices_go_as_torch_takes_them(shape: tuple[int, int]):
    weight = torch.zeros(shape)
    ours = walked(lambda p: Muon(p, momentum=0.9, **RATES), weight)
    theirs = walked(lambda p: torch.optim.Muon(p, momentum=0.9, adjust_lr_fn="match_rms_adamw", **RATES), weight)
    assert (ours - theirs).norm() < 0.03 * theirs.norm()  # torch reckons in bfloat16


def test_a_convolution_goes_as_its_matrix_does():
    weight = torch.randn(6, 3, 3, 3)
    flat = walked(lambda p: Muon(p, **RATES), weight.flatten(1), steps=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(weight.clone(memory_format=layout))
        parameter.grad = torch.randn(6, 27, generator=torch.Generator().manual_seed(1)).view_as(weight)
        Muon([parameter], **RATES).step()
        torch.testing.assert_close(parameter.detach().flatten(1), flat)


@pytest.mark.parametrize("shape", [(4, 4), (3, 20), (20, 3)])
def test_singular_vectors_stay_and_values_go_through_the_polynomial(shape: tuple[int, int]):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(orthogonalize(matrix), left @ values.diag() @ right, atol=1e-5, rtol=1e-5)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_no_gradient_and_a_gradient_of_zeros_move_nothing():
    still, zero = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    zero.grad = torch.zeros(3, 2)
    Muon([still, zero], weight_decay=0).step()
    assert torch.equal(still, torch.ones(3, 2))
    assert torch.equal(zero, torch.ones(3, 2))


def test_it_resumes_exactly_from_its_state():
    nets = [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)) for _ in range(2)]
    images = torch.randn(8, 4)

    def train(net: nn.Module, optimizer: Muon, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()

    whole, parted = nets
    parted.load_state_dict(whole.state_dict())
    train(whole, Muon(whole.parameters(), lr=0.01), 4)
    first = Muon(parted.parameters(), lr=0.01)
    train(parted, first, 2)
    second = Muon(parted.parameters(), lr=0.01)
    second.load_state_dict(first.state_dict())
    train(parted, second, 2)
    for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(one, other)
