"""python -m handwriting.export CHECKPOINT --onnx FILE: a model as an ONNX file, for programs without PyTorch."""

import argparse
from pathlib import Path

from handwriting.runs.trust import add_options, trust_of
from handwriting.utils.errors import exit_on_bad_input
from handwriting.utils.hardware import use_machine


def main(arguments: list[str] | None = None) -> None:
    """Write a model as an ONNX file; exit code 2 if it cannot be loaded or written, or predicts differently."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.export",
        description="Write a trained model, with its normalisation, as an ONNX file. Input: uint8 images (N, C, H, W), "
        "any N: grey writing (C 1) bright on black, photographs (C 3: red, green, blue) as they are. Outputs: "
        "probabilities and logits (N, classes); of several characters those of the network, which a few lines of NumPy "
        "in handwriting/inference/onnx.py decode. The class names are in its metadata. Before it is written, its "
        "outputs are compared with those of the model.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a run's folder, such as outputs/mnist/optim=adam, or a checkpoint"
    )
    parser.add_argument("--onnx", type=Path, metavar="FILE", required=True, help="the file to write")
    add_options(parser)
    with exit_on_bad_input():
        parsed = parser.parse_args(arguments)
    with exit_on_bad_input(parsed.onnx):
        use_machine()
        from handwriting.inference.onnx import export

        export(parsed.checkpoint, parsed.onnx, trust_of(parsed))


if __name__ == "__main__":
    main()
