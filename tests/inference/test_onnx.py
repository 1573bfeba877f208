"""An exported model has the same outputs as the model, for any number of images, and contains its class names."""

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml

from handwriting.inference import onnx as module
from handwriting.inference.checkpoints import load_trained
from handwriting.inference.onnx import export
from handwriting.runs.config import CONF
from handwriting.runs.instantiate import build
from handwriting.training.module import Classifier
from handwriting.utils.errors import UserError

# The exporter takes seconds for each model: make test-long tests all.
MODELS = [
    pytest.param(name, marks=[] if name in ("net", "glyph_net") else [pytest.mark.long])
    for name in sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
    if name not in ("knn", "linear", "svm", "forest")  # no networks
    and name not in ("crnn", "detect_then_read", "detector", "digit_heads", "ssdlite")  # test_onnx_sequences.py
]


def save(file: Path, model: dict[str, Any], temperature: float = 1.0, **more: Any) -> Path:
    """Save an untrained model, with batch statistics, in the format of a run's checkpoint."""
    torch.manual_seed(0)
    net = build("model", model, num_classes=10, image_size=(28, 28))
    classifier = Classifier(net, partial(torch.optim.SGD, lr=0.1), None, 10, 0.13, 0.3)
    with torch.no_grad():
        classifier.train()(torch.randint(256, (64, 1, 28, 28), dtype=torch.uint8))
    settings = {"model": model, **more}
    names = {"class_names": list("0123456789"), "glyphs": list("٠١٢٣٤٥٦٧٨٩")}
    facts = {"settings": settings, **names, "image_size": [28, 28], "temperature": temperature}
    torch.save({"state_dict": classifier.state_dict(), "handwriting": facts}, file)
    return file


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save(tmp_path / "net.ckpt", {"_target_": "handwriting.models.net.Net", "widths": [4, 8], "hidden": [16]})


@pytest.mark.parametrize("model", MODELS)
def test_each_model_has_the_same_outputs_in_onnx_runtime(model: str, tmp_path: Path):
    config = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    if bases := [base for base in config.pop("defaults", []) if base != "_self_"]:
        config = yaml.safe_load((CONF / "model" / f"{bases[0]}.yaml").read_text(encoding="utf-8")) | config
    if model == "glyph_net":
        config |= {"pooling": "blur", "margin": 2}  # as in experiment=mnist_best; all others use max pooling
        config |= {"depths": [1, 1, 1]}  # the same operations, exported sooner
    checkpoint = save(tmp_path / "net.ckpt", config)
    assert export(checkpoint, tmp_path / "net.onnx") <= 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for number in (1, 3, 70):
        images = torch.randint(256, (number, 1, 28, 28), dtype=torch.uint8)
        with torch.inference_mode():
            logits = load_trained(checkpoint).model(images).numpy()
        probabilities, own = map(np.asarray, session.run(None, {"images": images.numpy()}))
        np.testing.assert_allclose(own, logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_the_file_contains_the_class_names(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export(small, tmp_path / "a" / "net.onnx")
    proto = onnx.load(tmp_path / "a" / "net.onnx")
    onnx.checker.check_model(proto)
    metadata = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert metadata["class_names"] == list("0123456789")
    assert metadata["glyphs"] == list("٠١٢٣٤٥٦٧٨٩")
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert "noise images (its test images are not available" in capsys.readouterr().out


def test_the_probabilities_are_calibrated(tmp_path: Path):
    net = {"_target_": "handwriting.models.net.Net", "widths": [4, 8], "hidden": [16]}
    assert export(save(tmp_path / "net.ckpt", net, temperature=3.0), tmp_path / "net.onnx") <= 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    images = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    probabilities, logits = (torch.from_numpy(np.asarray(one)) for one in session.run(None, {"images": images.numpy()}))
    torch.testing.assert_close(probabilities, (logits / 3).softmax(1))


def test_the_run_s_own_test_images_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = {"_target_": "handwriting.data.DataModule", "name": "digits", "batch_size": 32, "val_fraction": 0.2}
    data["read"] = {"_target_": "handwriting.data.digits.read_digits", "_partial_": True}
    net = {"_target_": "handwriting.models.net.Net", "widths": [4, 8], "hidden": [16]}
    export(save(tmp_path / "net.ckpt", net, data=data), tmp_path / "net.onnx")
    assert "same predictions as the model on 200 test images" in capsys.readouterr().out


@pytest.mark.long
def test_a_file_with_different_predictions_is_not_written(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = save(tmp_path / "other.ckpt", {"_target_": "handwriting.models.net.Net", "widths": [8, 8], "hidden": [16]})
    content = module._as_onnx(load_trained(other))
    monkeypatch.setattr(module, "_as_onnx", lambda _: content)
    with pytest.raises(UserError, match=r"predicts differently from the model .*; .*net.onnx is not written"):
        export(small, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("lacking", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(lacking: str, small: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else found(name))
    with pytest.raises(UserError, match=rf"{lacking} is not installed: pip install 'handwriting\[export\]'"):
        export(small, small.with_suffix(".onnx"))
