import torch
from torchvision.ops import batched_nms

from handwriting.models.sequence_model import Transcript


def decode_detections(boxes, probabilities, threshold=0.3, overlap=0.5):
    out = []
    score, label = probabilities.sum(2), probabilities.argmax(2)
    best = probabilities.amax(2)
    n, k = score.shape
    keep = torch.zeros(n * k, dtype=torch.bool)
    idx = torch.arange(n).repeat_interleave(k)
    kept = batched_nms(boxes.reshape(-1, 4), score.reshape(-1), idx, overlap)
    keep[kept] = True
    keep = keep.view(n, k) & (score >= threshold)
    for i in range(n):
        w = keep[i].nonzero()[:, 0]
        o = w[(boxes[i, w, 0] + boxes[i, w, 2]).argsort()]
        p = best[i, o]
        out.append(
            Transcript(
                tuple(label[i, o].tolist()), float(p.prod()), tuple(p.tolist()), tuple(map(tuple, boxes[i, o].tolist()))
            )
        )
    return out


def fuse(*a):
    raise NotImplementedError
