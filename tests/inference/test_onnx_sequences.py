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
EXPORTED = {  # the model, the form of its decoding; the exporter takes seconds for each
    "digit_heads": (HEADS, "positions", []),
    "resnet18": (HEADS | {"backbone": "resnet18"}, "positions", [pytest.mark.long]),
    "crnn": (CRNN, "frames", []),
    "detector": (DETECTOR, "boxes", []),
    "ssdlite": (SSDLITE, "boxes", [pytest.mark.long]),
    "detect_then_read": (BOTH, "positions", []),
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
def test_the_documented_lines_decode_the_outputs_of_onnx_runtime(model: dict[str, Any], form: str, tmp_path: Path):
    checkpoint = save(tmp_path / "net.ckpt", model)
    assert export(checkpoint, tmp_path / "net.onnx") <= 1e-4
    proto = onnx.load(tmp_path / "net.onnx")
    metadata = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    names, limits = metadata["class_names"], metadata["decoding"]
    assert limits.pop("form") == form
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    images = torch.randint(256, (9, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"images": images.numpy()})))
    needed = ["boxes", "probabilities"] if form == "boxes" else [form]
    decode = documented(form)
    texts, probabilities = zip(*(decode(*row, names, **limits) for row in zip(*(found[name] for name in needed))))
    transcripts = load_trained(checkpoint).model.transcribe(images)  # type: ignore[operator]
    assert list(texts) == ["".join(names[label] for label in one.labels) for one in transcripts]
    assert len(set(texts)) > 3
    own = [one.probability for one in transcripts]
    if form == "frames":  # those of one path
        assert all(path <= whole + 1e-6 for path, whole in zip(probabilities, own, strict=True))
    else:
        assert list(probabilities) == pytest.approx(own, rel=1e-3)


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


def test_a_file_with_other_texts_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = save(tmp_path / "net.ckpt", HEADS)
    right = module._run
    for change, said in ((lambda values: values.roll(1, 2), "inf"), (lambda values: values * 1.001, "1.0e-03")):
        monkeypatch.setattr(
            module, "_run", lambda *given, change=change: {k: change(v) for k, v in right(*given).items()}
        )
        with pytest.raises(UserError, match=rf"outputs differ by up to {said}; .*net.onnx is not written"):
            export(checkpoint, tmp_path / "net.onnx")
        assert not (tmp_path / "net.onnx").exists()
