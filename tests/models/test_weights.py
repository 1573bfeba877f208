"""Pretrained weights from a local file, and what is said about one that cannot be used."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from handwriting.models import weights
from handwriting.models.digit_heads import DigitHeads
from handwriting.models.ssdlite import SSDLite
from handwriting.models.weights import load_weights
from handwriting.utils.errors import UserError


class Small(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.body, self.norm, self.fc = nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, classes)


def saved(folder: Path, content: object) -> str:
    torch.save(content, folder / "weights.pth")
    return str(folder / "weights.pth")


def test_all_but_the_last_layer_is_loaded(tmp_path: Path):
    given, net = Small(1000), Small(10)
    before = net.fc.weight.clone()
    load_weights(net, saved(tmp_path, given.state_dict()), last="fc.")
    assert torch.equal(net.body.weight, given.body.weight)
    assert torch.equal(net.norm.running_var, given.norm.running_var)  # type: ignore[arg-type]
    assert torch.equal(net.fc.weight, before)


def test_the_last_layer_may_be_absent(tmp_path: Path):
    given, net = Small(10), Small(10)
    content = {key: value for key, value in given.state_dict().items() if not key.startswith("fc.")}
    load_weights(net, saved(tmp_path, content), last="fc.")
    assert torch.equal(net.body.bias, given.body.bias)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"epoch": 3}, "is not a state dict"),
        ([torch.zeros(3)], "is not a state dict"),
        ({}, "is not a state dict"),
        ({"body.weight": torch.zeros(30, 40)}, "does not fit torchvision's Small: .* is missing"),
        ({**Small(10).state_dict(), "body.weight": torch.zeros(30, 41)}, "body.weight is missing or has another shape"),
        ({**Small(10).state_dict(), "more": torch.zeros(1)}, "more is missing or has another shape"),
        (Small(10), "contains more than tensors"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence_with_the_file(tmp_path: Path, content: object, reason: str):
    file = saved(tmp_path, content)
    with pytest.raises(UserError, match=reason) as caught:
        load_weights(Small(10), file, last="fc.")
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.pth cannot be read: No such file"):
        load_weights(Small(10), str(tmp_path / "nowhere.pth"), last="fc.")


@pytest.mark.parametrize("damage", ["truncated", "one byte", "text", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str):
    file = Path(saved(tmp_path, Small(10).state_dict()))
    content = file.read_bytes()
    weight = content.index(Small(10).norm.running_var.numpy().tobytes())  # type: ignore[union-attr]
    changed = {
        "truncated": content[: len(content) // 2],
        "one byte": content[:weight] + b"\xff" + content[weight + 1 :],
        "text": b"no weights",
        "empty": b"",
    }[damage]
    file.write_bytes(changed)
    with pytest.raises(UserError, match=r"is damaged or truncated|is not a state dict") as caught:
        load_weights(Small(10), str(file), last="fc.")
    assert str(file) in str(caught.value)


def test_code_in_a_file_is_not_executed(tmp_path: Path):
    class Touch:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(tmp_path / "touched"), "w")  # type: ignore[return-value]

    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(Touch(), protocol=2))
    with pytest.raises(UserError):
        load_weights(Small(10), str(file), last="fc.")
    assert not (tmp_path / "touched").exists()


def test_a_huge_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = saved(tmp_path, Small(10).state_dict())
    monkeypatch.setattr(weights, "LARGEST_FILE", 100)
    with pytest.raises(UserError, match="is larger than"):
        load_weights(Small(10), file, last="fc.")


def test_the_models_load_those_of_torchvision_and_then_have_other_classes(tmp_path: Path):
    from torchvision.models import mobilenet_v3_large, resnet18

    given = resnet18(num_classes=3)
    net = DigitHeads(7, (32, 48), backbone="resnet18", weights=saved(tmp_path, given.state_dict()))
    images = torch.randn(1, 3, 32, 48)
    maps = nn.Sequential(*list(given.children())[:-2]).eval()(images)
    assert torch.equal(net.stages.eval()(images), maps)

    mobile = mobilenet_v3_large(num_classes=3)
    torch.save(mobile.state_dict(), tmp_path / "mobile.pth")
    detector = SSDLite(7, (32, 48), weights=str(tmp_path / "mobile.pth"))
    first, expected = detector.ssd.backbone.state_dict(), mobile.features[0].state_dict()
    assert all(torch.equal(first[f"0.0.{key}"], value) for key, value in expected.items())


def test_weights_need_a_backbone_that_has_some():
    with pytest.raises(UserError, match=r"model\.weights=x\.pth needs model\.backbone=resnet18"):
        DigitHeads(weights="x.pth")
