"""Networks that recognise several characters in an image: the contract, and the network with its normalisation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from handwriting.data.dataset import Sequences
from handwriting.models.calibration import Platt, apply_platt

BATCH = 64  # batch size of transcribe
Outputs = Mapping[str, Tensor]  # of a network: named tensors, the first dimension of each is the image
# Versions of uint8 images (B, C, H, W), each with the matrices, float (B, 3, 3), that map its pixels (x, y, 1) to
# those of the images; None: they are the same.
SequenceViews = Callable[[Tensor], Iterable[tuple[Tensor, Tensor | None]]]
ViewOutputs = tuple[list[Outputs], list[Tensor | None]]  # of the views of a batch, and their matrices


@dataclass(frozen=True)
class Transcript:
    """The characters that were recognised in an image, in reading order.

    ``labels`` are their classes, ``probability`` is that of the whole sequence and ``probabilities`` those of each
    character, all of 0…1. ``boxes`` are left, top, right and bottom of each character in pixels of the model's input,
    or empty if the network does not locate characters.
    """

    labels: tuple[int, ...]
    probability: float
    probabilities: tuple[float, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()


class SequenceModel(nn.Module):
    """The base class of networks that recognise several characters in an image.

    A subclass takes ``num_classes``, ``image_size`` (height, width) and ``channels`` as keyword arguments, as those of
    single characters do, and defines forward, loss and decode.
    """

    uses_loss = False  # whether the group ``loss`` has an effect
    locates = False  # whether transcripts have boxes
    needs_boxes = False  # whether the loss needs those of the data set

    def forward(self, images: Tensor) -> Outputs:
        """Return named outputs for normalised images, float (N, C, H, W). They are exported, and decode needs them."""
        raise NotImplementedError

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return the mean loss of a batch, and what forward returns for it; in training mode it may be empty.

        ``criterion`` is the module of the group ``loss``; it is used if ``uses_loss``.
        """
        raise NotImplementedError

    def fits(self, labels: Tensor) -> Tensor:
        """Return whether the network can represent each row of labels (N, L), bool (N,); others are not in the loss."""
        return torch.ones(len(labels), dtype=torch.bool, device=labels.device)

    def decode(self, outputs: Outputs) -> list[Transcript]:
        """Return the most probable transcript of each image."""
        raise NotImplementedError

    def merge(self, several: Sequence[Outputs], back: Sequence[Tensor | None]) -> list[Transcript]:
        """Return one transcript of each image from the outputs for several views, or of several networks of this kind.

        ``back`` are the matrices of the views. Here the transcripts vote, each with its probability.
        """
        return vote([self.decode(outputs) for outputs in several])


def vote(several: Sequence[Sequence[Transcript]]) -> list[Transcript]:
    """Return for each image the transcript with the largest sum of probabilities over several networks or views."""
    merged = []
    for transcripts in zip(*several, strict=True):
        weights: dict[tuple[int, ...], float] = {}
        for one in transcripts:
            weights[one.labels] = weights.get(one.labels, 0.0) + one.probability
        labels = max(weights, key=lambda labels: weights[labels])
        chosen = max((one for one in transcripts if one.labels == labels), key=lambda one: one.probability)
        share = weights[labels] / len(transcripts)
        merged.append(Transcript(labels, share, chosen.probabilities, chosen.boxes))
    return merged


class SequenceRecognizer(nn.Module):
    """A SequenceModel for uint8 images (N, C, H, W), normalised by ``mean`` and ``std``.

    Both are of pixels on the scale 0…1. The state dict has the keys ``net.…``, ``mean`` and ``std``. ``platt``
    calibrates the probabilities of whole transcripts (see handwriting.models.calibration).
    """

    mean: Tensor
    std: Tensor
    net: SequenceModel
    platt: Platt | None = None

    def __init__(self, net: SequenceModel, mean: float = 0.0, std: float = 1.0):
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images as normalised floats."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Outputs:
        """Return the outputs of the network for uint8 images (N, C, H, W)."""
        return self.net(self.normalise(images))

    def outputs(self, images: Tensor, views: SequenceViews | None = None) -> list[ViewOutputs]:
        """Return for each batch of images the outputs for its views, on the CPU, and the matrices of the views."""
        was_training, device = self.training, self.mean.device
        self.eval()
        found: list[ViewOutputs] = []
        with torch.inference_mode():
            for batch in images.split(BATCH):
                seen = list(views(batch.to(device))) if views else [(batch.to(device), None)]
                several: list[Outputs] = [
                    {name: value.float().cpu() for name, value in self(view).items()} for view, _ in seen
                ]
                found.append((several, [back for _, back in seen]))
        self.train(was_training)
        return found

    def transcripts(self, found: Iterable[ViewOutputs]) -> list[Transcript]:
        """Return the transcripts of what ``outputs`` returned, merged over views, before calibration."""
        transcripts: list[Transcript] = []
        for several, back in found:
            transcripts += self.net.decode(several[0]) if len(several) == 1 else self.net.merge(several, back)
        return transcripts

    def transcribe(self, images: Tensor, views: SequenceViews | None = None) -> list[Transcript]:
        """Return the calibrated transcripts of uint8 images (N, C, H, W); with ``views``, merged over them."""
        return self.calibrate(self.transcripts(self.outputs(images, views)))

    def calibrate(self, transcripts: Sequence[Transcript]) -> list[Transcript]:
        """Return transcripts with calibrated probabilities; those of single characters stay as they are."""
        if self.platt is None:
            return list(transcripts)
        return [replace(one, probability=apply_platt(one.probability, self.platt)) for one in transcripts]
