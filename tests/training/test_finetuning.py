"""Fine-tuning: the weights that training starts from, and layers that do not change."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from handwriting.inference.checkpoints import read_weights
from handwriting.training.finetuning import freeze, start_from
from handwriting.training.module import TrainingModule
from handwriting.utils.errors import UserError

SMALL = ("data=digits", "data.limit=120", "model.widths=[4,8]", "model.hidden=[16]", "model.batch_norm=true")
FIRST = (*SMALL, "trainer.max_epochs=1", "name=first")
TUNED = (*SMALL, "trainer.max_epochs=2", "name=tuned", "init_from=outputs/first", "seed=1")


def record_of(folder: Path, name: str) -> dict[str, Any]:
    (result,) = folder.glob(f"outputs/{name}/*/result.json")
    return json.loads(result.read_text())


def weights(folder: Path, name: str, checkpoint: str = "last") -> dict[str, torch.Tensor]:
    (path,) = folder.glob(f"outputs/{name}/*/checkpoints/{checkpoint}.ckpt")
    return read_weights(path)


def convolutions(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name.startswith("net.features.")}


def test_frozen_layers_stay_those_of_the_other_run_and_the_rest_is_trained(main, tmp_path: Path):
    assert main(*FIRST).code == 0
    tuned = main(*TUNED, "freeze=[features]")
    assert tuned.code == 0, tuned.errors
    assert "tensors were copied; new: none" in tuned.output
    before, after = weights(tmp_path, "first", "best"), weights(tmp_path, "tuned")
    frozen = convolutions(before)
    assert any("running_mean" in name for name in frozen)
    for name, tensor in frozen.items():
        assert torch.equal(tensor, after[name]), name
    assert any(not torch.equal(before[name], after[name]) for name in before)
    (path,) = tmp_path.glob("outputs/tuned/*/checkpoints/last.ckpt")
    groups = torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"]
    trained = [name for name in before if name.endswith(("weight", "bias")) and name not in frozen]
    assert len(groups[0]["params"]) == len(trained)


def test_the_content_of_the_checkpoint_counts(main, tmp_path: Path):
    assert main(*FIRST).code == 0
    assert main(*TUNED).code == 0
    first = record_of(tmp_path, "tuned")
    again = main(*TUNED)
    assert "Nothing was trained" in again.output
    (path,) = tmp_path.glob("outputs/first/*/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["mean"] += 0.01
    torch.save(content, path)
    other = main(*TUNED)
    assert other.code == 2
    assert f"init_digest was {first['settings']['init_digest']}" in other.errors
    assert len(other.errors.splitlines()) == 1


def test_the_same_run_from_another_folder_is_done_already(main, tmp_path: Path):
    assert main(*FIRST).code == 0
    place = tmp_path / "outputs" / "first"
    assert main(*TUNED).code == 0
    assert record_of(tmp_path, "tuned")["settings"]["init_from"] == str(place)
    (run,) = (tmp_path / "outputs" / "tuned").glob("*/")
    assert "init_from=outputs_first" in run.name
    again = main(*(one for one in TUNED if "init_from" not in one), f"init_from={place}")
    assert "Nothing was trained" in again.output


def test_a_resumed_run_equals_an_undisturbed_one(main, tmp_path: Path):
    assert main(*FIRST).code == 0
    settings = (*TUNED, "freeze=[features]", "trainer.max_epochs=3")
    assert main(*settings, "name=whole").code == 0
    trained = TrainingModule.training_step

    def stop(model: TrainingModule, *arguments: Any) -> torch.Tensor:
        if model.current_epoch == 1:
            raise KeyboardInterrupt
        return trained(model, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", stop)
        assert main(*settings, "name=parts").code == 130
    resumed = main(*settings, "name=parts")
    assert "resumes after step" in resumed.output
    assert "were copied" not in resumed.output
    assert record_of(tmp_path, "parts")["metrics"] == record_of(tmp_path, "whole")["metrics"]
    whole = weights(tmp_path, "whole")
    for name, tensor in weights(tmp_path, "parts").items():
        assert torch.equal(tensor, whole[name]), name


def test_records_without_these_settings_are_as_before(main, tmp_path: Path):
    assert main(*FIRST).code == 0
    assert not record_of(tmp_path, "first")["settings"].keys() & {"init_from", "freeze", "init_digest"}


def saved(file: Path, model: nn.Module) -> Path:
    torch.save({"state_dict": model.state_dict()}, file)
    return file


class Model(nn.Module):
    """A network in a model, as in a run."""

    net: Any
    mean: torch.Tensor

    def __init__(self, classes: int, width: int = 4):
        super().__init__()
        self.net = nn.Sequential()
        self.net.add_module("features", nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width)))
        self.net.add_module("classifier", nn.Linear(width, classes))
        self.register_buffer("mean", torch.rand(()))


def test_a_last_layer_of_another_size_is_new(tmp_path: Path):
    other, model = Model(5), Model(7)
    last = model.net.classifier.weight.clone()
    note = start_from(model, saved(tmp_path / "other.ckpt", other))
    assert note == "init_from: 7 of 9 tensors were copied; new: net.classifier.weight, net.classifier.bias"
    for name, tensor in model.net.features.state_dict().items():
        assert torch.equal(tensor, other.net.features.state_dict()[name])
    assert torch.equal(model.mean, other.mean)
    assert torch.equal(model.net.classifier.weight, last)


def test_what_has_nothing_in_common_is_refused(tmp_path: Path):
    model = Model(5)
    foreign = saved(tmp_path / "foreign.ckpt", nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"^init_from=.*foreign.ckpt has no tensor of the same name and shape .*\.$"):
        start_from(model, foreign)
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="it has no state_dict"):
        start_from(model, tmp_path / "list.ckpt")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["feature"], r"^freeze=\[feature\]: this network has no layer feature\. Known: features, classifier\.$"),
        ([1], r"this network has no layer 1\."),
        ([""], r"this network has no layer"),
        (["features", "classifier"], r"^freeze=\[features,classifier\] leaves no parameter to train: freeze fewer"),
    ],
)
def test_layers_that_cannot_be_frozen_are_refused(names: list[Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        freeze(Model(5).net, names)


def test_an_inner_layer_is_frozen_alone():
    net = Model(5).net
    (frozen,) = freeze(net, ["features.1"])
    assert isinstance(frozen, nn.BatchNorm1d)
    assert [name for name, one in net.named_parameters() if not one.requires_grad] == [
        "features.1.weight",
        "features.1.bias",
    ]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("model=knn", "freeze=[features]"), "freeze=[features] has no effect on a classical baseline"),
        (("init_from=nowhere",), "nowhere is neither a checkpoint nor a folder of runs"),
        (("init_from=5",), "init_from=5 must be a text"),
        (("freeze=features",), "freeze=features must be a list"),
        (("freeze=[feature]",), "this network has no layer feature. Known: features, "),
    ],
)
def test_bad_input_is_one_sentence(main, tmp_path: Path, overrides: tuple[str, ...], sentence: str):
    refused = main("data=digits", "data.limit=120", *overrides)
    assert refused.code == 2
    assert sentence in refused.errors
    assert len(refused.errors.splitlines()) == 1
    assert not list(tmp_path.glob("outputs/*/*/result.json"))
