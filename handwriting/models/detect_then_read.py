"""Detection followed by recognition: find the region of all characters, crop it, recognise the crop."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import END, Sequences
from handwriting.models.detections import region_of
from handwriting.models.detector import Detector
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript
from handwriting.utils.errors import UserError


class DetectThenRead(SequenceModel):
    """A detector that finds the characters, and a network that recognises the region around all of them.

    ``detector`` and ``recogniser`` make the two networks. The detector is given images shrunk by the factor ``shrink``.
    The region is the hull of the boxes that it finds, enlarged by ``margin`` of its height on each side, and resampled
    to ``crop_size`` (height, width); None: as high as the images, and 1.5 times as wide. In training the region is that
    of the true boxes, with each side moved at random by up to ``jitter`` of the region's height, so that the recogniser
    also knows imprecise regions. Both networks are trained together; they share no parameters.
    """

    locates, needs_boxes = True, True

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        detector: Callable[..., Detector],
        recogniser: Callable[..., SequenceModel],
        channels: int = 3,
        shrink: int = 1,
        crop_size: Sequence[int] | None = None,
        margin: float = 0.2,
        jitter: float = 0.2,
    ):
        super().__init__()
        height, width = image_size
        if height % shrink or width % shrink:
            raise UserError(f"model.shrink={shrink} must divide both sides of data.image_size=[{height},{width}].")
        down, across = crop_size or (height, 3 * height // 2)
        self.shrink, self.crop_size, self.margin, self.jitter = shrink, (down, across), margin, jitter
        self.detector = detector(
            num_classes=num_classes, image_size=(height // shrink, width // shrink), channels=channels
        )
        self.recogniser = recogniser(num_classes=num_classes, image_size=self.crop_size, channels=channels)
        self.uses_loss = self.recogniser.uses_loss
        if hasattr(self.recogniser, "max_length"):
            self.max_length = self.recogniser.max_length

    def forward(self, images: Tensor) -> Outputs:
        """Return the detector's candidates and the outputs of the recogniser for the region that they cover."""
        found = self.detector(self._shrunk(images))
        return self._read(images, found)

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return the sum of both losses, and outside training what forward returns.

        The recogniser's loss is that for the region of the true boxes.
        """
        assert targets.boxes is not None
        small = Sequences(targets.labels, targets.boxes / self.shrink)
        finding, found = self.detector.loss(self._shrunk(images), small, criterion)
        region = region_of(targets.boxes, targets.labels != END, self.margin)
        if self.training:
            height = (region[:, 3] - region[:, 1])[:, None]
            region = region + (torch.rand_like(region) * 2 - 1) * self.jitter * height
        inside = Sequences(targets.labels, self._in_crop(targets.boxes, region))
        reading, _ = self.recogniser.loss(self._crop(images, region), inside, criterion)
        return finding + reading, {} if self.training else self._read(images, found)

    def decode(self, outputs: Outputs) -> list[Transcript]:
        """Return what the recogniser says; with the detector's boxes where it found as many characters."""
        return self._with_boxes(self.recogniser.decode(outputs), outputs)

    def merge(self, several: Sequence[Outputs], back: Sequence[Tensor | None]) -> list[Transcript]:
        """Return the merged transcripts of the recogniser, with the boxes of the first view."""
        return self._with_boxes(self.recogniser.merge(several, back), several[0])

    def _with_boxes(self, transcripts: Sequence[Transcript], outputs: Outputs) -> list[Transcript]:
        found = self.detector.decode(outputs)
        return [
            Transcript(one.labels, one.probability, one.probabilities, other.boxes)
            if len(one.labels) == len(other.labels)
            else one
            for one, other in zip(transcripts, found, strict=True)
        ]

    def _read(self, images: Tensor, found: Outputs) -> Outputs:
        boxes = found["boxes"] * self.shrink
        score = found["probabilities"].sum(2)  # that of any character: which one does not matter for the region
        likely = score >= self.detector.threshold
        best = F.one_hot(score.argmax(1), score.shape[1]).bool()  # where none is likely
        region = region_of(boxes, likely | (best & ~likely.any(1, keepdim=True)), self.margin)
        return {"boxes": boxes, "probabilities": found["probabilities"], **self.recogniser(self._crop(images, region))}

    def _shrunk(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.shrink) if self.shrink > 1 else images

    def _in_crop(self, boxes: Tensor, region: Tensor) -> Tensor:
        """Return boxes (N, L, 4) of images in pixels of the crops of regions (N, 4)."""
        height, width = self.crop_size
        corner, other = region[:, None, [0, 1] * 2], region[:, None, [2, 3] * 2]
        return (boxes - corner) / (other - corner).clamp(min=1) * boxes.new_tensor([width, height] * 2)

    def _crop(self, images: Tensor, region: Tensor) -> Tensor:
        """Return the regions (N, 4) of images, resampled to ``crop_size``; the border repeats beyond the image."""
        height, width = images.shape[2:]
        left, top, right, bottom = (side[:, None] for side in region.unbind(1))
        down, across = ((torch.arange(cells, device=region.device) + 0.5) / cells for cells in self.crop_size)
        x, y = left + across * (right - left), top + down * (bottom - top)  # (N, cells), in pixels
        places = torch.broadcast_tensors((2 * x / width - 1)[:, None, :], (2 * y / height - 1)[:, :, None])
        grid = torch.stack(places, 3).to(images.dtype)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
