"""CRNN: convolutions, a recurrent network over the columns of the image, and CTC."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import END, Sequences
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript
from handwriting.models.stages import residual_stages

LEAST = 1e-4  # a beam search ignores labels that are less probable than this in a frame

BLANK_BIAS = -2.0  # at the beginning: otherwise the first steps only learn that most frames are blank

Labels = tuple[int, ...]


class CRNN(SequenceModel):
    """Convolutions that keep a quarter of the width, a bidirectional LSTM over it, and CTC.

    B. Shi, X. Bai, C. Yao, 2015, arXiv:1507.05717; CTC: A. Graves et al., 2006. The maps are halved in height by every
    stage, in width only by the first two, and reduced to their maximum over the height: an image has W/4 frames,
    rounded up. ``widths`` are the channels of the stages, ``depths`` their numbers of convolutions, ``hidden`` the
    units of the LSTM in each direction. Unlike in the paper, the last layer sees the convolutions too, not
    the LSTM alone: its features then learn directly from the labels.

    The output ``frames`` are log-probabilities (N, frames, num_classes + 1); the blank has the index num_classes. A
    path has a label or the blank in each frame; equal neighbours count once, then blanks are left out. Numbers that
    need more frames, one for each character and one between equal neighbours, are ignored by the loss.

    With boxes, the frame at the centre of a character also learns its label, with the weight ``guide`` beside CTC. CTC
    alone finds slowly where the characters are.

    ``beam`` 1 decodes the best path; more searches that many prefixes. Either way the probability of a transcript is
    the exact sum over all of its paths, and that of a character is relative to all characters in its place.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (64, 160),
        channels: int = 3,
        widths: Sequence[int] = (24, 32, 64, 96),
        depths: Sequence[int] = (1, 2, 2, 2),
        hidden: int = 128,
        activation: str = "relu",
        dropout: float = 0.0,
        beam: int = 1,
        guide: float = 1.0,
    ):
        super().__init__()
        strides = [(2, 2 if stage < 2 else 1) for stage in range(len(widths))]
        self.frames = -(-image_size[1] // 2 ** min(2, len(widths)))  # rounded up
        self.num_classes, self.beam, self.guide, self.width = num_classes, beam, guide, image_size[1]
        self.features = residual_stages(channels, widths, depths, strides, activation)
        self.recurrent = nn.LSTM(widths[-1], hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * hidden + widths[-1], num_classes + 1)
        nn.init.constant_(self.classifier.bias[-1:], BLANK_BIAS)

    def forward(self, images: Tensor) -> Outputs:
        """Return the log-probabilities ``frames`` (N, frames, num_classes + 1) of images (N, C, H, W)."""
        columns = self.features(images).amax(2).transpose(1, 2)
        context, _ = self.recurrent(columns)
        logits = self.classifier(self.dropout(torch.cat([context, columns], 2)))
        return {"frames": logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(2)}

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return the CTC loss in nats, the mean over the images whose number fits, and the outputs.

        With boxes, the cross-entropy of the frames at their centres is added, summed over the characters of an image.
        """
        outputs, fits = self(images), self.fits(targets.labels)
        losses = -log_probability(outputs["frames"], targets.labels, zero_infinity=True)  # 0 where it does not fit
        if targets.boxes is not None and self.guide:
            centres = targets.boxes[..., [0, 2]].mean(2) * self.frames / self.width
            frame = centres.long().clamp(0, self.frames - 1)
            there = outputs["frames"].gather(1, frame[..., None].expand(-1, -1, self.num_classes + 1))
            named = there.gather(2, targets.labels.clamp(min=0)[..., None])[..., 0]
            losses = losses - self.guide * (named * (targets.labels != END) * fits[:, None]).sum(1)
        return losses.sum() / fits.sum().clamp(min=1), outputs

    def fits(self, labels: Tensor) -> Tensor:
        """Return whether each row of labels (N, L) has a path in the frames, bool (N,)."""
        repeats = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != END)
        return (labels != END).sum(1) + repeats.sum(1) <= self.frames

    def decode(self, outputs: Outputs) -> list[Transcript]:
        """Return the most probable transcript that the search finds for each image."""
        return self.merge([outputs], [None])

    def merge(self, several: Sequence[Outputs], back: Sequence[Tensor | None]) -> list[Transcript]:
        """Return of the transcripts that are found in any outputs those with the highest mean probability."""
        frames = [outputs["frames"].double().cpu() for outputs in several]
        found = [set(labels) for labels in zip(*map(best_paths, frames), strict=True)]
        if self.beam > 1:
            for member in frames:
                for labels, image in zip(found, member.exp().numpy(), strict=True):
                    labels.update(beam_search(image, self.beam))
        images = [image for image, labels in enumerate(found) for _ in labels]
        rows = [row for labels in found for row in sorted(labels)]
        best: list[tuple[float, Labels]] = [(-1.0, ())] * len(found)
        for image, labels, p in zip(images, rows, mean_probability(frames, images, rows).tolist(), strict=True):
            best[image] = max(best[image], (p, labels))
        characters = character_probabilities(frames, [labels for _, labels in best])
        return [Transcript(labels, min(p, 1.0), each) for (p, labels), each in zip(best, characters, strict=True)]


def log_probability(frames: Tensor, labels: Tensor, zero_infinity: bool = False) -> Tensor:
    """Return the log-probabilities (N,) of labels (N, L) after frames (N, T, classes + 1), over all paths.

    Without a path it is -inf, or 0 and without gradient with ``zero_infinity``.
    """
    steps, lengths = torch.full((len(frames),), frames.shape[1]), (labels != END).sum(1)
    blank, time_first = frames.shape[2] - 1, frames.transpose(0, 1)
    return -F.ctc_loss(time_first, labels.clamp(min=0), steps, lengths, blank, "none", zero_infinity)


def best_paths(frames: Tensor) -> list[Labels]:
    """Return the labels of the most probable path of each image; a more probable sequence may have many paths."""
    path, blank = frames.argmax(2), frames.shape[2] - 1
    before = F.pad(path, (1, 0), value=blank)[:, :-1]
    begins = (path != before) & (path != blank)
    return [tuple(row[kept].tolist()) for row, kept in zip(path, begins, strict=True)]


def beam_search(frames: np.ndarray, beam: int) -> list[Labels]:
    """Return the ``beam`` most probable sequences that a prefix beam search finds, the best first.

    ``frames`` are the probabilities (T, classes + 1) of an image. A. Hannun et al., 2014, arXiv:1408.2873, without a
    language model.
    """
    blank = frames.shape[1] - 1
    beams = {(): (1.0, 0.0)}  # of each prefix, the probabilities of its paths that end in a blank, and of the others
    for frame in frames:
        grown: dict[Labels, list[float]] = defaultdict(lambda: [0.0, 0.0])
        likely = [(label, float(frame[label])) for label in np.flatnonzero(frame > LEAST).tolist()]
        for prefix, (ended, going) in beams.items():
            for label, p in likely:
                if label == blank:
                    grown[prefix][0] += p * (ended + going)
                elif prefix and label == prefix[-1]:
                    grown[prefix][1] += p * going  # the same character
                    grown[(*prefix, label)][1] += p * ended  # a second one
                else:
                    grown[(*prefix, label)][1] += p * (ended + going)
        best = sorted(grown.items(), key=lambda item: -sum(item[1]))[:beam]
        beams = {prefix: (ended, going) for prefix, (ended, going) in best}
    return list(beams)


def mean_probability(several: Sequence[Tensor], images: list[int], labels: list[Labels]) -> Tensor:
    """Return the probability (rows,) of each row of labels in its image, the mean over the members."""
    if not labels:  # torch's ctc_loss refuses an empty batch
        return several[0].new_zeros(0)
    longest = max([1, *map(len, labels)])
    padded = torch.tensor([[*row, *[END] * (longest - len(row))] for row in labels])
    return torch.stack([log_probability(frames[images], padded).exp() for frames in several]).mean(0)


def character_probabilities(several: Sequence[Tensor], transcripts: list[Labels]) -> list[tuple[float, ...]]:
    """Return the probability of each character of a transcript per image, given the other characters."""
    classes = several[0].shape[2] - 1
    places = [(image, place) for image, labels in enumerate(transcripts) for place in range(len(labels))]
    images = [image for image, _ in places for _ in range(classes)]
    variants = [
        (*transcripts[image][:place], other, *transcripts[image][place + 1 :])
        for image, place in places
        for other in range(classes)
    ]
    of_each = mean_probability(several, images, variants).view(-1, classes)
    shares = iter((of_each / of_each.sum(1, keepdim=True)).tolist())
    return [tuple(next(shares)[label] for label in labels) for labels in transcripts]
