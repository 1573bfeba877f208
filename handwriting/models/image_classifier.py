"""A network with its normalisation: uint8 images in, logits or probabilities out. Does not import Lightning."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

BATCH = 500  # batch size of predict_proba
Views = Callable[[Tensor], Iterable[Tensor]]  # of images, uint8 (B, C, H, W)


class ImageClassifier(nn.Module):
    """A network that classifies uint8 images (N, C, H, W), normalised by ``mean`` and ``std``.

    Both are of pixels on the scale 0…1. The state dict has the keys ``net.…``, ``mean`` and ``std``. ``temperature``
    divides the logits of probabilities, and of nothing else (see handwriting.models.calibration).
    """

    mean: Tensor
    std: Tensor
    temperature: float = 1.0

    def __init__(self, net: nn.Module, mean: float = 0.0, std: float = 1.0):
        super().__init__()
        # Channels last: convolutions train 1.3 to 1.6 times as fast on a CPU; results differ by rounding only.
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float (N, classes), of uint8 images (N, C, H, W)."""
        logits = self.net((images.to(self.mean.dtype) / 255 - self.mean) / self.std)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))  # in bf16 a loss would have three digits

    def predict_proba(self, images: Tensor, views: Views | None = None) -> Tensor:
        """Return the calibrated probabilities, float (N, classes) on the CPU, of uint8 images (N, C, H, W).

        ``views`` returns several versions of a batch; what is calibrated is then the mean over them.
        """
        return self.calibrate(self.log_proba(images, views))

    def log_proba(self, images: Tensor, views: Views | None = None) -> Tensor:
        """Return the logarithms of the probabilities before calibration; the arguments are those of predict_proba."""
        was_training, device = self.training, self.mean.device
        self.eval()
        with torch.inference_mode():
            found = []
            for batch in images.split(BATCH):
                seen = views(batch.to(device)) if views else [batch.to(device)]
                several = torch.stack([self(view).float().log_softmax(1) for view in seen])
                found.append((several.logsumexp(0) - math.log(len(several))).cpu())
        self.train(was_training)
        return torch.cat(found)

    def calibrate(self, logits: Tensor) -> Tensor:
        """Return the calibrated probabilities of logits or log-probabilities, (N, classes) both."""
        return (logits / self.temperature).softmax(1)
