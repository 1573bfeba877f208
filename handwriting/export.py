"""python -m handwriting.export CHECKPOINT --onnx FILE: a net for programs without PyTorch."""

import argparse
import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from handwriting.utils.errors import UserError, exit_on_bad_input
from handwriting.utils.files import write_bytes
from handwriting.utils.hardware import use_machine

if TYPE_CHECKING:
    import torch

    from handwriting.inference.checkpoints import Trained

CHECKED = 200  # images that both programs read
TOLERANCE = 1e-5  # by which their probabilities may differ


def main(arguments: list[str] | None = None) -> None:
    """Write a net as an ONNX file; exit code 2 when it cannot be read, written or does not read the same."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.export",
        description="Write a trained net, with its preparation, as an ONNX file: it takes uint8 images (N, 1, H, W), "
        "ink bright on black, any number at once, and gives probabilities and logits (N, classes). The names of the "
        "classes are in its metadata. What it gives is compared with the net before it is kept.",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, as in outputs/mnist/optim=adam, or a checkpoint")
    parser.add_argument("--onnx", type=Path, metavar="FILE", required=True, help="the file to write")
    with exit_on_bad_input():
        asked = parser.parse_args(arguments)
    with exit_on_bad_input(asked.onnx):
        export(asked.checkpoint, asked.onnx)


def export(place: Path, file: Path) -> float:
    """Write the net of a checkpoint as an ONNX file and return the largest difference of probability found.

    Raises UserError when there is none, when a package is missing, or when what ONNX Runtime makes of the file differs
    by more than TOLERANCE: then there is no file.
    """
    if lacking := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise UserError(f"{', '.join(lacking)} is not installed: pip install 'handwriting[export]'.")
    use_machine()
    from handwriting.inference.checkpoints import find_checkpoint, load_trained

    trained = load_trained(find_checkpoint(place))
    content = _as_onnx(trained)
    images, which = _some_images(trained)
    difference = _compare(trained, content, images)
    if not difference <= TOLERANCE:
        raise UserError(
            f"ONNX Runtime reads {len(images)} {which} otherwise than the net, by {difference:.1e} of probability; "
            f"{file} is not written."
        )
    write_bytes(file, content)
    Console(highlight=False).print(
        f"{file}: {len(content) / 1e6:.1f} MB, reads {len(images)} {which} as the net does "
        f"(probabilities differ by {difference:.0e} at most).",
        soft_wrap=True,
    )
    return difference


def _as_onnx(trained: "Trained") -> bytes:
    """Return the net of a checkpoint, from uint8 images to probabilities, as the content of an ONNX file."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained.model

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.model(images)
            return logits.softmax(1), logits

    images = torch.zeros(2, 1, *trained.image_size, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
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


def _some_images(trained: "Trained") -> "tuple[torch.Tensor, str]":
    """Return images of the part that tested the net, uint8 (N, 1, H, W), or where its data are not here, noise."""
    import torch

    from handwriting.inference.evaluation import read_part

    try:
        images = read_part(trained, "test", [])[1].images
    except UserError as error:
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(256, (CHECKED, 1, *trained.image_size), dtype=torch.uint8, generator=noise)
        return images, f"images of noise (its test images are not here: {str(error).rstrip('.')})"
    return images[:: max(len(images) // CHECKED, 1)][:CHECKED], "test images"


def _compare(trained: "Trained", content: bytes, images: "torch.Tensor") -> float:
    """Return the largest difference of probability between the net and ONNX Runtime, in batches of several sizes."""
    import numpy as np
    import onnxruntime

    from handwriting.inference.checkpoints import predict_proba

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rest = len(images) - 1
    parts = [images[:1], images[1:]] if rest else [images]
    answers = [np.asarray(session.run(["probabilities"], {"images": part.numpy()})[0]) for part in parts]
    return float(np.abs(np.concatenate(answers) - predict_proba(trained, images).numpy()).max())


if __name__ == "__main__":
    main()
