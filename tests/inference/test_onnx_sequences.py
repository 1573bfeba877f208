"""An exported model of several characters: its outputs, and their decoding by the documented lines."""

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from handwriting.inference import onnx as module
from handwriting.inference.checkpoints import load_trained
from handwriting.inference.onnx import export
from handwriting.models.sequence_model import SequenceRecognizer
from handwriting.runs.instantiate import build_model
from handwriting.utils.errors import UserError

SIZE = (32, 80)
MODELS = "handwriting.models"
HEADS = {"_target_": f"{MODELS}.digit_heads.DigitHeads", "widths": [8, 16], "depths": [1, 1], "max_length": 4}
CRNN = {"_target_": f"{MODELS}.crnn.CRNN", "widths": [8, 8, 16], "depths": [1, 1, 1], "hidden": 16}
DETECTOR = {"_target_": f"{MODELS}.detector.Detector", "widths": [8, 16, 24], "depths": [1, 1, 1], "features": 16}
SSDLITE = {"_target_": f"{MODELS}.ssdlite.SSDLite", "width": 0.25, "candidates": 40}
BOTH = {
    "_target_": f"{MODELS}.detect_then_read.DetectThenRead",
    "detector": DETECTOR | {"_partial_": True},
    "recogniser": HEADS | {"_partial_": True},
    "crop_size": [32, 48],
}
EXPORTED = {  # the model, the form of its decoding; the exporter takes seconds for each: make test-long tests all
    "digit_heads": (HEADS, "positions", [pytest.mark.long]),
    "resnet18": (HEADS | {"backbone": "resnet18"}, "positions", [pytest.mark.long]),
    "crnn": (CRNN, "frames", [pytest.mark.long]),
    "detector": (DETECTOR, "boxes", []),
    "ssdlite": (SSDLITE, "boxes", [pytest.mark.long]),
    "detect_then_read": (BOTH, "positions", [pytest.mark.long]),
    "detect_then_read_crnn": (BOTH | {"recogniser": CRNN | {"_partial_": True}}, "frames", [pytest.mark.long]),
}
CASES = [pytest.param(model, form, id=name, marks=marks) for name, (model, form, marks) in EXPORTED.items()]


def save(file: Path, model: dict[str, Any]) -> Path:
    """Save an untrained model, with batch statistics, in the format of a run's checkpoint.

    Of candidates, those with the most probable tenth are above the threshold.
    """
    torch.manual_seed(0)
    net = SequenceRecognizer(build_model(model, 10, SIZE, 3), 0.4, 0.25)
    images = torch.randint(256, (64, 3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        for _ in range(20):
            net.train()(images)
        score = net.eval()(images).get("probabilities", torch.ones(1, 1, 1)).amax(2)
    if hasattr(net.net, "threshold"):
        model = model | {"threshold": score.quantile(0.9).item()}
    facts = {"settings": {"model": model}, "class_names": list("0123456789"), "image_size": SIZE, "channels": 3}
    torch.save({"state_dict": net.state_dict(), "handwriting": facts}, file)
    return file


def documented(form: str) -> Callable[..., tuple[str, float]]:
    """Execute the lines of the documentation that decode a form, and return their function."""
    assert module.__doc__
    blocks = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", module.__doc__)
    found: dict[str, Any] = {"np": np}
    for block in blocks:
        exec(textwrap.dedent(block), found)
    return found[f"decode_{form}"]


@pytest.mark.parametrize(("model", "form"), CASES)
def test_each_model_has_the_same_outputs_in_onnx_runtime(model: dict[str, Any], form: str, tmp_path: Path):
    checkpoint = save(tmp_path / "net.ckpt", model)
    assert export(checkpoint, tmp_path / "net.onnx") <= 1e-4
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert metadata["class_names"] == list("0123456789")
    assert metadata["decoding"]["form"] == form
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    trained, names = load_trained(checkpoint), [one.name for one in session.get_outputs()]
    assert isinstance(trained.model, SequenceRecognizer)
    for number in (1, 3, 70):
        images = torch.randint(256, (number, 3, *SIZE), dtype=torch.uint8)
        found = dict(zip(names, map(torch.from_numpy, session.run(None, {"images": images.numpy()})), strict=True))
        transcripts = trained.model.net.decode(found)
        expected = trained.model.transcribe(images)
        assert [one.labels for one in transcripts] == [one.labels for one in expected]
        assert [one.probability for one in transcripts] == pytest.approx(
            [one.probability for one in expected], rel=1e-3, abs=1e-5
        )


def random_outputs(form: str, count: int = 60) -> dict[str, torch.Tensor]:
    """The outputs of a form for some images: none, one and several characters are all frequent."""
    random = torch.Generator().manual_seed(0)
    if form == "boxes":
        corner, side = (torch.rand(count, 12, 2, generator=random) for _ in range(2))
        boxes = torch.cat([60 * corner, 60 * corner + 5 + 20 * side], 2)
        scores = torch.rand(count, 12, 1, generator=random) ** 6
        shares = (3 * torch.randn(count, 12, 10, generator=random)).softmax(2)
        return {"boxes": boxes, "probabilities": scores * shares}
    values = 3 * torch.randn(count, 12 if form == "frames" else 4, 11, generator=random)
    values[..., 10] += 8 if form == "frames" else 3
    return {form: values.log_softmax(2) if form == "frames" else values}


@pytest.mark.parametrize(("form", "model"), [("positions", HEADS), ("frames", CRNN), ("boxes", DETECTOR)])
def test_the_documented_lines_decode_as_the_network_does(form: str, model: dict[str, Any]):
    net, outputs, decode = build_model(model, 10, SIZE, 3), random_outputs(form), documented(form)
    limits = {"threshold": net.threshold, "overlap": net.overlap} if form == "boxes" else {}
    found = [
        decode(*row, "0123456789", **limits) for row in zip(*(one.numpy() for one in outputs.values()), strict=True)
    ]
    transcripts = net.decode(outputs)
    assert [text for text, _ in found] == ["".join(map(str, one.labels)) for one in transcripts]
    assert {len(text) for text, _ in found} >= {0, 1, 2}
    probabilities, own = [value for _, value in found], [one.probability for one in transcripts]
    if form == "frames":  # of one path
        assert all(path <= whole * 1.0001 for path, whole in zip(probabilities, own, strict=True))
        assert max(path / whole for path, whole in zip(probabilities, own, strict=True)) > 0.5
    else:
        assert probabilities == pytest.approx(own, rel=1e-4)


def test_the_documented_suppression_is_torchvision_s():
    from torchvision.ops import nms

    decode, random = documented("boxes"), np.random.default_rng(0)
    for _ in range(20):
        corner, side = random.uniform(0, 60, (30, 2)), random.uniform(5, 30, (30, 2))
        boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
        probabilities = random.dirichlet(np.ones(10), 30).astype(np.float32)
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(probabilities.max(1)), 0.4)
        left = sorted(kept.tolist(), key=lambda k: boxes[k, 0] + boxes[k, 2])
        text, _ = decode(boxes, probabilities, "0123456789", threshold=0.0, overlap=0.4)
        assert text == "".join(str(probabilities[k].argmax()) for k in left)


@pytest.mark.parametrize(
    ("model", "change", "difference"),
    [
        (HEADS, lambda values: 50 * values.flip(2), "inf"),
        (HEADS, lambda values: values * 1.001, "1.0e-03"),
        (DETECTOR, lambda values: values.flip(1), None),  # only the order of the candidates
        (DETECTOR, lambda values: values * (1.0002 if values.shape[2] == 4 else 1), "2.0e-04"),
    ],
)
def test_a_file_with_other_outputs_is_not_written(
    model: dict[str, Any], change: Callable, difference: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint, file = save(tmp_path / "net.ckpt", model), tmp_path / "net.onnx"

    def run(content: bytes, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return {name: change(values) for name, values in load_trained(checkpoint).model(images).items()}

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "_as_onnx", lambda _: b"")
    if difference is None:
        assert export(checkpoint, file) <= 1e-4
        return
    with pytest.raises(UserError, match=rf"outputs differ by up to {difference}; .*net.onnx is not written"):
        export(checkpoint, file)
    assert not file.exists()
