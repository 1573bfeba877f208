"""SSDLite: torchvision's single-shot detector on MobileNetV3, with anchors for digits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import END, Sequences
from handwriting.models.detections import DetectionModel, intersection_over_union
from handwriting.models.sequence_model import Outputs
from handwriting.models.weights import load_weights

# Geometric mean of height and width of the anchors, as fractions of the image's height, on the maps of stride 8 and 16;
# and their heights divided by their widths. At 64×160, 98 % of the digits in 2,500 of SVHN's photographs overlap an
# anchor by MATCH.
SIZES = ((0.16, 0.22, 0.31), (0.44, 0.63))
ASPECTS = (1.3, 2.0, 3.0)
MATCH = 0.4  # intersection over union from which an anchor is trained to be the digit
STRIDE = 16  # that of the last maps
C3, C4 = 7, 13  # blocks of MobileNetV3-Large that halve the maps to stride 16 and to stride 32


class SSDLite(DetectionModel):
    """SSD (W. Liu et al., 2016, arXiv:1512.02325) with depthwise separable heads on MobileNetV3-Large.

    A. Howard et al., 2019, arXiv:1905.02244. Modules and loss are torchvision's; unlike its ssdlite320, the heads are
    on the maps of stride 8 and 16, for digits of 10 pixels and more, and the deeper layers are left out. ``width``
    multiplies the channels, ``upsample`` the sides of the image before the first layer. ``weights`` may be a local
    file of the state dict of torchvision's mobilenet_v3_large; grey images are repeated as three channels.

    The outputs are the ``candidates`` anchors with the highest scores: see handwriting.models.detections. Raises
    UserError for weights that do not fit.
    """

    anchors: Tensor
    scale: Tensor
    limits: Tensor

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (64, 160),
        channels: int = 3,
        width: float = 1.0,
        upsample: int = 1,
        weights: str | None = None,
        candidates: int = 100,
        threshold: float = 0.5,
        overlap: float = 0.5,
    ):
        super().__init__(threshold, overlap)
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.ssd import SSD
        from torchvision.models.detection.ssdlite import SSDLiteHead

        norm = partial(nn.BatchNorm2d, eps=0.001)  # that of MobileNetV3, with torch's momentum for short trainings
        height, length = (-(-side * upsample // STRIDE) * STRIDE for side in image_size)  # rounded up
        self.size = height, length
        generator = AnchorGenerator([[height * size for size in sizes] for sizes in SIZES], [ASPECTS] * len(SIZES))
        backbone = _mobilenet(width, norm, weights).eval()
        with torch.no_grad():
            maps = _maps(backbone, torch.zeros(1, 3, height, length))
        widths = [one.shape[1] for one in maps]
        head = SSDLiteHead(widths, generator.num_anchors_per_location(), num_classes + 1, norm)
        # AnchorGenerator instead of DefaultBoxGenerator, whose aspect ratios are relative to those of the image.
        boxes: Any = generator
        self.ssd = SSD(backbone.train(), boxes, self.size, num_classes + 1, head=head, iou_thresh=MATCH)
        image = ImageList(torch.zeros(1, 3, height, length), [self.size])
        self.register_buffer("anchors", generator(image, maps)[0], persistent=False)
        sides = torch.tensor([*image_size[::-1]] * 2)  # W, H, W, H
        self.register_buffer("limits", sides, persistent=False)
        self.register_buffer("scale", torch.tensor([length, height] * 2) / sides, persistent=False)
        self.candidates = min(candidates, len(self.anchors))

    def forward(self, images: Tensor) -> Outputs:
        """Return the candidates ``boxes`` (N, K, 4) and ``probabilities`` (N, K, classes) of images (N, C, H, W)."""
        return self._candidates(self._heads(images))

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return torchvision's loss of an SSD, per matched anchor, and the outputs; in training these are empty."""
        assert targets.boxes is not None
        heads = self._heads(images)
        digits = []
        for labels, boxes in zip(targets.labels, targets.boxes, strict=True):
            kept = (labels != END) & (boxes[:, 2:] > boxes[:, :2]).all(1)  # a box without area has no regression
            digits.append({"labels": labels[kept] + 1, "boxes": boxes[kept] * self.scale})  # 0 is the background
        matches = [self._match(one["boxes"]) for one in digits]
        losses = self.ssd.compute_loss(digits, heads, [self.anchors] * len(digits), matches)
        return losses["bbox_regression"] + losses["classification"], {} if self.training else self._candidates(heads)

    def _heads(self, images: Tensor) -> dict[str, Tensor]:
        images = F.interpolate(images.expand(-1, 3, -1, -1), self.size, mode="bilinear")
        heads = self.ssd.head(_maps(self.ssd.backbone, images))
        return {name: values.to(torch.promote_types(values.dtype, torch.float32)) for name, values in heads.items()}

    def _match(self, boxes: Tensor) -> Tensor:
        """Return for each anchor the index of the box that it is trained to find, or a negative number."""
        if not len(boxes):
            return torch.full((len(self.anchors),), -1, device=boxes.device)
        return self.ssd.proposal_matcher(intersection_over_union(boxes[:, None], self.anchors))

    def _candidates(self, heads: dict[str, Tensor]) -> Outputs:
        probabilities = heads["cls_logits"].softmax(2)[..., 1:]
        best = probabilities.amax(2).topk(self.candidates, 1).indices
        offsets, probabilities = (_at(best, values) for values in (heads["bbox_regression"], probabilities))
        boxes = self.ssd.box_coder.decode_single(offsets.flatten(0, 1), self.anchors[best].flatten(0, 1))
        boxes = torch.minimum((boxes / self.scale).clamp(min=0), self.limits).view_as(offsets)
        return {"boxes": boxes, "probabilities": probabilities}


def _mobilenet(width: float, norm: Callable[..., nn.Module], weights: str | None) -> nn.ModuleList:
    """Return the layers of MobileNetV3-Large up to its expansion at stride 8, and those up to that at stride 16."""
    from torchvision.models import mobilenet_v3_large

    net = mobilenet_v3_large(norm_layer=norm, width_mult=width)
    if weights:
        load_weights(net, weights, last="classifier.")
    blocks: list[Any] = list(net.features)
    (expand3, *rest3), expand4 = blocks[C3].block, blocks[C4].block[0]
    return nn.ModuleList([nn.Sequential(*blocks[:C3], expand3), nn.Sequential(*rest3, *blocks[C3 + 1 : C4], expand4)])


def _maps(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    maps = [images]
    for layers in backbone.children():
        maps.append(layers(maps[-1]))
    return maps[1:]


def _at(index: Tensor, values: Tensor) -> Tensor:
    """Return values (N, A, size) at index (N, K). torch.export cannot do this with take_along_dim."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
