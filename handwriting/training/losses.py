"""Losses that torch does not have."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FocalLoss(nn.Module):
    """Cross-entropy weighted by (1 - p)^γ, p being the probability of the true class: easy images count less.

    T.-Y. Lin et al., 2017, arXiv:1708.02002, for many classes. ``gamma`` 0 is cross-entropy. ``label_smoothing`` as
    torch's CrossEntropyLoss has it.
    """

    def __init__(self, gamma: float = 2.0, label_smoothing: float = 0.0):
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits (B, classes), in nats; targets: labels (B,) or soft targets (B, classes)."""
        classes = logits.shape[1]
        soft = F.one_hot(targets, classes) if targets.ndim == 1 else targets
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_p = logits.log_softmax(1)
        # expm1 keeps 1 - p exact where p is nearly 1; it is never exactly 0, where powers below 1 have no gradient.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return -(soft * rest**self.gamma * log_p).sum(1).mean()
