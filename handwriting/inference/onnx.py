"""A trained model as an ONNX file, for programs without PyTorch.

The input ``images`` is uint8 (N, C, H, W). A model of single characters has the outputs ``probabilities``, which are
calibrated, and ``logits``. The outputs of a model of several characters are decoded by a few lines of NumPy: the entry
``decoding`` of the metadata says by which, and the two limits of boxes. Each function takes one image and returns its
text and the probability p of the text; ``names`` are the ``class_names`` of the metadata. If the entry ``platt`` is not
null but [a, b], the calibrated probability is 1 / (1 + exp(-(a · log p + b))).

``positions``: logits (L, classes + 1) of each position; the last class is "no character"::

    def decode_positions(logits, names):
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        characters = np.append(1, p[:, :-1].max(1).cumprod())  # probability of the first 0 … L of them
        whole = characters * np.append(p[:, -1], 1)  # with the end after them
        length = whole.argmax()
        return "".join(names[label] for label in p[:length, :-1].argmax(1)), whole[length]

``frames``: log-probabilities (T, classes + 1) of each frame; the last class is the blank of CTC. This is the best path
(model.beam=1); its probability is less than that of the text, which is the sum over all of its paths::

    def decode_frames(frames, names):
        path, blank = frames.argmax(1), frames.shape[1] - 1
        begins = (path != blank) & (path != np.append(blank, path[:-1]))
        return "".join(names[label] for label in path[begins]), np.exp(frames.max(1).sum())

``boxes``: candidates, (K, 4) in pixels, and their ``probabilities`` (K, classes)::

    def decode_boxes(boxes, probabilities, names, threshold, overlap):
        score, area, kept = probabilities.max(1), (boxes[:, 2:] - boxes[:, :2]).prod(1), []
        for k in (-score).argsort(kind="stable"):  # non-maximum suppression
            sides = np.minimum(boxes[k, 2:], boxes[kept, 2:]) - np.maximum(boxes[k, :2], boxes[kept, :2])
            both = sides.clip(0).prod(1)
            if not (both > overlap * (area[k] + area[kept] - both)).any():
                kept.append(k)
        found = [k for k in kept if score[k] >= threshold]
        whole = np.prod([score[k] if k in found else 1 - score[k] for k in kept])
        found.sort(key=lambda k: boxes[k, 0] + boxes[k, 2])
        return "".join(names[probabilities[k].argmax()] for k in found), whole
"""

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from handwriting.inference.checkpoints import Trained, find_checkpoint, load_trained, outputs_of, predict_proba
from handwriting.inference.evaluation import load_split
from handwriting.models.image_classifier import ImageClassifier
from handwriting.models.sequence_model import SequenceRecognizer
from handwriting.runs.trust import NO_TRUST, Trust
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_bytes

CHECKED = 200  # images for the comparison of PyTorch and ONNX Runtime
TOLERANCE = 1e-5  # maximum difference of their probabilities
RELATIVE = 1e-4  # maximum difference of other outputs, as a fraction of their largest value
FORMS = ("positions", "frames", "boxes")  # of decoding, by the name of an output; models that locate may have two


def export(place: Path, file: Path, trust: Trust = NO_TRUST) -> float:
    """Write the model of a checkpoint as an ONNX file and return the largest difference of outputs found.

    Of one character that is the difference of probabilities; of several, that relative to the largest value of an
    output. Raises UserError if there is no checkpoint, if a package is missing, or if the outputs of ONNX Runtime
    differ by more than TOLERANCE or RELATIVE, or its texts differ; then no file is written.
    """
    if lacking := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise UserError(f"{', '.join(lacking)} is not installed: pip install 'handwriting[export]'.")
    trained = load_trained(find_checkpoint(place), trust)
    content = _as_onnx(trained)
    images, which = _some_images(trained)
    outputs = _run(content, images)
    compare, limit = (_compare_texts, RELATIVE) if trained.is_sequence else (_compare_probabilities, TOLERANCE)
    difference = compare(trained, outputs, images)
    what = "outputs" if trained.is_sequence else "probabilities"
    if not difference <= limit:
        raise UserError(
            f"ONNX Runtime predicts differently from the model on {len(images)} {which}: {what} differ by up to "
            f"{difference:.1e}; {file} is not written."
        )
    write_bytes(file, content)
    Console(highlight=False, markup=False, emoji=False).print(
        f"{file}: {len(content) / 1e6:.1f} MB, same predictions as the model on {len(images)} {which} "
        f"({what} differ by at most {difference:.0e}).",
        soft_wrap=True,
    )
    return difference


class _Exported(torch.nn.Module):
    """A model from uint8 images to a tuple of its outputs."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(images)
        if isinstance(self.model, ImageClassifier):
            return self.model.calibrate(outputs), outputs
        return tuple(outputs.values())


def _as_onnx(trained: Trained) -> bytes:
    """Return the model of a checkpoint, from uint8 images to its outputs, as the content of an ONNX file."""
    images = torch.zeros(2, trained.channels, *trained.image_size, dtype=torch.uint8)
    metadata: dict[str, Any] = {"class_names": trained.class_names, "glyphs": trained.glyphs}
    names = ["probabilities", "logits"]
    if isinstance(trained.model, SequenceRecognizer):
        with torch.inference_mode():
            names = list(trained.model(images))
        limits = {name: getattr(trained.model.net, name, None) for name in ("threshold", "overlap")}
        form = next((form for form in FORMS if form in names), None)
        metadata["decoding"] = {"form": form, **(limits if form == "boxes" else {})}
        metadata["platt"] = trained.model.platt
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's warnings about itself
        try:
            program = torch.onnx.export(
                _Exported(trained.model).eval(),
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=names,
                dynamic_shapes={"images": {0: torch.export.Dim("N")}},
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:  # of an operation of a user's network
            reason = " ".join(str(error.__cause__ or error).split())
            raise UserError(
                f"The network of {trained.name} cannot be exported: {shorten(reason, 300, placeholder=' …')}"
            ) from error
    assert program is not None
    proto = program.model_proto
    for key, values in metadata.items():
        proto.metadata_props.add(key=key, value=json.dumps(values, ensure_ascii=False))
    return proto.SerializeToString()


def _some_images(trained: Trained) -> tuple[torch.Tensor, str]:
    """Return test images of the model, uint8 (N, C, H, W), or noise if its data are not available."""
    try:
        images = load_split(trained, "test", [])[1].images
    except UserError as error:
        noise = torch.Generator().manual_seed(0)
        shape = (CHECKED, trained.channels, *trained.image_size)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=noise)
        return images, f"noise images (its test images are not available: {str(error).rstrip('.')})"
    return images[:: max(len(images) // CHECKED, 1)][:CHECKED], "test images"


def _run(content: bytes, images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of ONNX Runtime by their names, for two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    batches = [images[:1], images[1:]] if len(images) > 1 else [images]
    found = [session.run(None, {"images": batch.numpy()}) for batch in batches]
    return {
        name: torch.from_numpy(np.concatenate(values))
        for name, values in zip(names, zip(*found, strict=True), strict=True)
    }


def _compare_probabilities(trained: Trained, outputs: dict[str, Tensor], images: Tensor) -> float:
    """Return the largest difference of probabilities."""
    return float((outputs["probabilities"] - predict_proba(trained, images)).abs().max())


def _compare_texts(trained: Trained, outputs: dict[str, Tensor], images: Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest value of each; infinity if a text differs."""
    assert isinstance(trained.model, SequenceRecognizer)
    batches = [several[0] for several, _ in outputs_of(trained, images)]
    own = {name: torch.cat([batch[name] for batch in batches]) for name in outputs}
    texts = [[one.labels for one in trained.model.net.decode(some)] for some in (own, outputs)]
    if texts[0] != texts[1]:
        return float("inf")
    if own.keys() >= {"boxes", "probabilities"}:
        outputs = outputs | _in_order(outputs, own)
    largest = {name: values.abs().max().clamp(min=1e-6) for name, values in own.items()}
    return max(float((outputs[name] - values).abs().max() / largest[name]) for name, values in own.items())


def _in_order(outputs: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return candidates in the order of the model's own: those with nearly equal scores may have changed places.

    At the end of the list such candidates may be others, so they are replaced by the model's own.
    """
    size = own["boxes"].abs().max()
    both = [torch.cat([some["boxes"] / size, some["probabilities"]], 2) for some in (own, outputs)]
    nearest = torch.cdist(*both, p=torch.inf).argmin(2)[..., None]
    score = own["probabilities"].amax(2, keepdim=True)
    last = score <= score.amin(1, keepdim=True) + TOLERANCE
    names = ("boxes", "probabilities")
    return {name: torch.where(last, own[name], outputs[name].take_along_dim(nearest, 1)) for name in names}
