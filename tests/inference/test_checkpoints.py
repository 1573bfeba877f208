"""Checkpoints: only tensors and plain data are loaded, and each error is one sentence."""

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from handwriting.inference import checkpoints
from handwriting.inference.checkpoints import find_checkpoints, load_trained, transcribe
from handwriting.models.digit_heads import DigitHeads
from handwriting.models.net import Net
from handwriting.models.sequence_model import SequenceRecognizer
from handwriting.runs.config import augmentation_of_views
from handwriting.runs.instantiate import build_model
from handwriting.training.module import Classifier
from handwriting.utils.errors import UserError

MODEL = {"_target_": "handwriting.models.net.Net", "widths": [4, 8], "hidden": [16]}


def content(**changed: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = Classifier(
        Net(10, (28, 28), widths=[4, 8], hidden=[16]), partial(torch.optim.SGD, lr=0.1), None, 10, 0.13, 0.3
    )
    facts = {"settings": {"model": MODEL}, "class_names": list("0123456789"), "glyphs": [], "image_size": [28, 28]}
    return {"state_dict": model.state_dict(), "handwriting": facts | changed}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(content(), tmp_path / "net.ckpt")
    return tmp_path / "net.ckpt"


def test_a_model_is_rebuilt_from_its_checkpoint_alone(file: Path):
    trained = load_trained(file)
    assert (trained.class_names, trained.image_size, trained.name) == (tuple("0123456789"), (28, 28), "net")
    assert not trained.model.training
    assert (trained.model.mean.item(), trained.model.std.item()) == pytest.approx((0.13, 0.3))
    for name, weights in content()["state_dict"].items():
        assert torch.equal(trained.model.state_dict()[name], weights)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {os.environ['EVIL_FILE']}",)


@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_a_pickle_that_would_run_a_command_is_not_run(file: Path, way: str, monkeypatch: pytest.MonkeyPatch):
    trace = file.with_name("trace")
    monkeypatch.setenv("EVIL_FILE", str(trace))
    if way == "pickle":
        file.write_bytes(pickle.dumps(Evil()))
    else:
        torch.save(content() | {"more": Evil()}, file)
    with pytest.raises(UserError, match="contains more than tensors and plain data: it is not loaded"):
        load_trained(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "subprocess.Popen", "args": ["true"]},
        {"_target_": "handwriting.models.net.Net", "activation": {"_target_": "os.system", "command": "true"}},
        {"_target_": "handwriting.models.net.Net", "widths": [4, {"_target_": "builtins.eval"}]},
        {"_target_": "handwriting.data.DataModule"},
    ],
)
def test_only_targets_in_conf_are_instantiated(file: Path, config: dict[str, Any]):
    torch.save(content(settings={"model": config}), file)
    with pytest.raises(UserError, match=r"which is in no file of conf/model|of Python's standard library"):
        load_trained(file)


BOTH = {
    "_target_": "handwriting.models.detect_then_read.DetectThenRead",
    "detector": {"_target_": "handwriting.models.detector.Detector", "_partial_": True, "features": 8},
    "recogniser": {"_target_": "handwriting.models.crnn.CRNN", "_partial_": True, "hidden": 8},
}


def save_both(file: Path, **changed: Any) -> None:
    """Save a model that contains two others, for several characters."""
    net = SequenceRecognizer(build_model(BOTH, 10, (32, 80), 3), 0.4, 0.2)
    facts = {"settings": {"model": BOTH | changed}, "class_names": list("0123456789"), "image_size": [32, 80]}
    torch.save({"state_dict": net.state_dict(), "handwriting": facts | {"channels": 3, "photographs": True}}, file)


def test_a_model_of_several_characters_is_rebuilt_with_the_models_in_it(file: Path):
    save_both(file)
    trained = load_trained(file)
    assert trained.is_sequence
    assert trained.photographs
    images = torch.randint(256, (3, 3, 32, 80), dtype=torch.uint8)
    found = transcribe(trained, images)
    assert [one.labels for one in found] == [one.labels for one in trained.model.transcribe(images)]  # type: ignore[operator]
    assert not trained.model.training


@pytest.mark.parametrize("inner", [{"_target_": "os.system"}, {"_target_": "torch.load", "_partial_": True}])
def test_models_inside_a_model_must_be_in_conf_too(file: Path, inner: dict[str, Any]):
    save_both(file, recogniser=inner)
    with pytest.raises(UserError, match=r"which is not of this package: it is not loaded|of Python's standard library"):
        load_trained(file)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(file: Path, fraction: float):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(UserError, match=r"damaged or truncated|is not a checkpoint"):
        load_trained(file)


def test_a_changed_byte_of_the_weights_is_one_sentence(file: Path):
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged or truncated"):
        load_trained(file)


@pytest.mark.parametrize(
    "model",
    [
        {**MODEL, "widths": [4, 16]},
        {"_target_": "handwriting.models.lenet.LeNet"},
        {**MODEL, "widths": [0]},
        {**MODEL, "unknown": 1},
    ],
)
def test_weights_of_another_model_are_one_sentence(file: Path, model: dict[str, Any]):
    torch.save(content(settings={"model": model}), file)
    with pytest.raises(UserError):
        load_trained(file)


@pytest.mark.parametrize("other", [{"state_dict": {}}, [1, 2], {"handwriting": {"settings": {}}}, torch.zeros(3)])
def test_a_file_of_another_program_is_one_sentence(file: Path, other: Any):
    torch.save(other, file)
    with pytest.raises(UserError, match="of another program"):
        load_trained(file)


@pytest.mark.parametrize("changed", [{"widths": [4, 9]}, {"widths": [4]}, {"batch_norm": True}])
def test_weights_that_do_not_fit_the_named_model_are_one_sentence(file: Path, changed: dict[str, Any]):
    torch.save(content(settings={"model": MODEL | changed}), file)
    with pytest.raises(UserError, match=r"does not fit the model .* train it again with force=true") as caught:
        load_trained(file)
    assert "\n" not in str(caught.value)


def test_without_channels_a_model_is_of_grey_writing(file: Path):
    trained = load_trained(file)
    assert (trained.channels, trained.photographs, len(trained.examples)) == (1, False, 0)
    torch.save(content(channels=1, photographs=True), file)
    assert load_trained(file).photographs


def test_a_colour_model_is_rebuilt(file: Path):
    net = Net(10, (28, 28), 3, widths=[4, 8], hidden=[16])
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    saved = content(channels=3, photographs=True)
    torch.save(saved | {"state_dict": saved["state_dict"] | weights}, file)
    trained = load_trained(file)
    assert (trained.channels, trained.photographs) == (3, True)
    assert trained.model(torch.zeros(2, 3, 28, 28, dtype=torch.uint8)).shape == (2, 10)


@pytest.mark.parametrize(
    "changed",
    [
        {"image_size": [28]},
        {"ink": 5},
        {"glyphs": 5},
        {"settings": 5},
        {"channels": 3},
        {"channels": 0},
        {"channels": "many"},
    ],
)
def test_damaged_metadata_are_one_sentence(file: Path, changed: dict[str, Any]):
    torch.save(content(**changed), file)
    with pytest.raises(UserError, match="does not fit the model that it names"):
        load_trained(file)


@pytest.mark.parametrize("views", [5, "nudge", ["nudge"], None, {"augment": ""}])
def test_without_tta_settings_the_augmentation_of_training_makes_the_views(views: Any):
    assert augmentation_of_views({"tta": views, "augment": {"steps": {}}}) == {"steps": {}}


def test_a_huge_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "LARGEST_FILE", 1000)
    with pytest.raises(UserError, match="is larger than"):
        load_trained(file)


def test_a_checkpoint_is_found_by_its_file_its_run_or_the_folder_of_runs(tmp_path: Path, make_run, file: Path):
    for name in ("optim=sgd", "optim=adam"):
        run = make_run(tmp_path / "study", name)
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "best.ckpt").write_bytes(b"")
    make_run(tmp_path / "study", "optim=adagrad", status="failed")
    best = tmp_path / "study" / "optim=sgd" / "checkpoints" / "best.ckpt"
    assert find_checkpoints(file) == [file]
    assert find_checkpoints(best.parents[1]) == [best]
    assert [path.parents[1].name for path in find_checkpoints(tmp_path / "study")] == ["optim=adam", "optim=sgd"]
    with pytest.raises(UserError, match=r"has no checkpoints/best\.ckpt"):
        find_checkpoints(tmp_path / "study" / "optim=adagrad")
    with pytest.raises(UserError, match="neither a checkpoint nor a folder"):
        find_checkpoints(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no finished run .* Did you mean .*study\?"):
        find_checkpoints(tmp_path)


def test_a_file_of_weights_that_training_began_with_is_not_needed(file: Path):
    heads = {"_target_": "handwriting.models.digit_heads.DigitHeads", "backbone": "resnet18", "weights": "gone.pt"}
    net = DigitHeads(10, (32, 64), 3, backbone="resnet18")
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    saved = content(settings={"model": heads}, image_size=[32, 64], channels=3, photographs=True)
    torch.save(saved | {"state_dict": {**weights, "mean": torch.tensor(0.5), "std": torch.tensor(0.2)}}, file)
    trained = load_trained(file)
    assert trained.settings["model"]["weights"] == "gone.pt"
    images = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    expected = net.eval()((images / 255 - 0.5) / 0.2)["positions"]
    torch.testing.assert_close(trained.model(images)["positions"], expected)
