import pytest
import torch
from torch.nn import functional as F

from handwriting.training.losses import FocalLoss

torch.manual_seed(0)
LOGITS, LABELS = 3 * torch.randn(20, 7), torch.arange(20) % 7


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shares", [False, True])
def test_gamma_0_is_cross_entropy(smoothing: float, shares: bool):
    targets = torch.rand(20, 7).softmax(1) if shares else LABELS
    ours = FocalLoss(0, smoothing)(LOGITS, targets)
    assert ours.item() == pytest.approx(F.cross_entropy(LOGITS, targets, label_smoothing=smoothing).item(), rel=1e-5)


def test_it_is_the_formula_of_the_paper():
    p = LOGITS.double().softmax(1)[torch.arange(20), LABELS]
    assert FocalLoss(2)(LOGITS, LABELS).item() == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_its_gradient_is_right_and_finite_where_all_is_sure(gamma: float):
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: FocalLoss(gamma)(x, LABELS), logits)
    sure = (1e4 * F.one_hot(LABELS, 7)).float().requires_grad_()
    FocalLoss(gamma)(sure, LABELS).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()
