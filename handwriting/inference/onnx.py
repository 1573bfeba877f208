"""A trained model as an ONNX file, for programs without PyTorch."""

import importlib.util
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from handwriting.inference.checkpoints import Trained, find_checkpoint, load_trained, predict_proba
from handwriting.inference.evaluation import read_part
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_bytes

CHECKED = 200  # images for the comparison of PyTorch and ONNX Runtime
TOLERANCE = 1e-5  # maximum difference of their probabilities


def export(place: Path, file: Path) -> float:
    """Write the model of a checkpoint as an ONNX file and return the largest difference of probabilities found.

    Raises UserError if there is no checkpoint, if a package is missing, or if the probabilities of ONNX Runtime differ
    by more than TOLERANCE; then no file is written.
    """
    if lacking := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise UserError(f"{', '.join(lacking)} is not installed: pip install 'handwriting[export]'.")
    trained = load_trained(find_checkpoint(place))
    content = _as_onnx(trained)
    images, which = _some_images(trained)
    difference = _compare(trained, content, images)
    if not difference <= TOLERANCE:
        raise UserError(
            f"ONNX Runtime predicts differently from the model on {len(images)} {which}: probabilities differ by up to "
            f"{difference:.1e}; {file} is not written."
        )
    write_bytes(file, content)
    Console(highlight=False).print(
        f"{file}: {len(content) / 1e6:.1f} MB, same predictions as the model on {len(images)} {which} "
        f"(probabilities differ by at most {difference:.0e}).",
        soft_wrap=True,
    )
    return difference


def _as_onnx(trained: Trained) -> bytes:
    """Return the model of a checkpoint, from uint8 images to probabilities, as the content of an ONNX file."""

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained.model

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.model(images)
            return logits.softmax(1), logits

    images = torch.zeros(2, trained.channels, *trained.image_size, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's warnings about itself
        program = torch.onnx.export(
            Whole().eval(),
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, values in (("class_names", trained.class_names), ("glyphs", trained.glyphs)):
        proto.metadata_props.add(key=key, value=json.dumps(values, ensure_ascii=False))
    return proto.SerializeToString()


def _some_images(trained: Trained) -> tuple[torch.Tensor, str]:
    """Return test images of the model, uint8 (N, C, H, W), or noise if its data are not available."""
    try:
        images = read_part(trained, "test", [])[1].images
    except UserError as error:
        noise = torch.Generator().manual_seed(0)
        shape = (CHECKED, trained.channels, *trained.image_size)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=noise)
        return images, f"noise images (its test images are not available: {str(error).rstrip('.')})"
    return images[:: max(len(images) // CHECKED, 1)][:CHECKED], "test images"


def _compare(trained: Trained, content: bytes, images: torch.Tensor) -> float:
    """Return the largest difference of probabilities between the model and ONNX Runtime, for two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rest = len(images) - 1
    parts = [images[:1], images[1:]] if rest else [images]
    answers = [np.asarray(session.run(["probabilities"], {"images": part.numpy()})[0]) for part in parts]
    return float(np.abs(np.concatenate(answers) - predict_proba(trained, images).numpy()).max())
