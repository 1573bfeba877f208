"""Optimizers and schedulers that torch does not have, or not for convolutions."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts


class Muon(Optimizer):
    """Muon for weights with two or more axes, such as those of convolutions; AdamW for all others.

    The momentum of a weight, as a matrix (outputs, inputs × height × width), is replaced by nearly the nearest
    orthogonal one, so that every direction is learned at the same speed (K. Jordan et al., 2024,
    kellerjordan.github.io/posts/muon). It is scaled as large as a step of AdamW (J. Liu et al., 2025,
    arXiv:2502.16982), so that ``lr`` and ``weight_decay`` mean what they mean there. torch.optim.Muon does the same
    with matrices alone, and needs another optimizer beside it; ``betas`` are for what this one leaves to AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.01,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take an optimisation step; return the loss from ``closure`` if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, decay = group["lr"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is not None:
                    rule = self._muon if weight.ndim > 1 else self._adam
                    step = rule(weight.grad, self.state[weight], group)
                    weight.mul_(1 - lr * decay).add_(step, alpha=-lr)
        return loss

    @staticmethod
    def _muon(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"]).flatten(1)  # Nesterov's
        return (0.2 * max(ahead.shape) ** 0.5 * orthogonalize(ahead)).view_as(gradient)

    @staticmethod
    def _adam(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state |= {"steps": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["steps"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["steps"])
        square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["steps"])
        return mean / (square.sqrt() + 1e-8)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of this one and singular values between about 0.7 and 1.2.

    Five steps of Newton and Schulz with K. Jordan's coefficients, which raise small values fast and do not settle. All
    of them happen to the small square matrix of products of rows: with the long one it takes nearly twice as long.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    square = x @ x.T
    factor = step = _polynomial(square)
    for _ in range(4):  # x goes to step @ x; all steps are polynomials of the first square, so that order is nothing
        square = step @ square @ step
        step = _polynomial(square)
        factor = step @ factor
    x = factor @ x
    return x.T if tall else x


def _polynomial(square: Tensor) -> Tensor:
    step = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
    step.diagonal().add_(3.4445)
    return step


class CosineCycles(CosineAnnealingWarmRestarts):
    """The learning rate of snapshot ensembles (G. Huang et al., 2017, arXiv:1704.00109), to be stepped with each batch.

    In each of ``cycles`` of equal length it falls from the optimizer's rate to 0 along a cosine.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, cycles: int = 5):
        super().__init__(optimizer, T_0=math.ceil(total_steps / cycles))
