"""A user's own network, optimizer, data set and augmentation, from a file in the working folder."""

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from handwriting.evaluate import main as evaluate
from handwriting.export import main as export
from handwriting.inference.checkpoints import load_trained
from handwriting.page.checkpoints import gather
from handwriting.predict import main as predict
from handwriting.reader import Reader
from handwriting.runs.trust import NO_TRUST, Trust
from handwriting.utils.errors import UserError

CODE = '''
import os

import torch
from torch import nn

from handwriting.data.digits import read_digits
from mylayers import middle


class MyNet(nn.Module):
    def __init__(self, num_classes: int, image_size: tuple[int, int], width: int = 32):
        super().__init__()
        height, width_of_image = image_size
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(height * width_of_image, width), *middle(width))
        self.last = nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.last(self.layers(images))


class MyOptimizer(torch.optim.Adam):
    """Adam under another name."""


def read_mine():
    return read_digits()


class Darken:
    def __init__(self, most: float = 0.2):
        self.most = most

    def __call__(self, pixels, targets, classes, generator):
        return pixels * (1 - self.most * torch.rand(len(pixels), 1, 1, 1, generator=generator)), targets
'''
LAYERS = "from torch import nn\n\n\ndef middle(width):\n    return [nn.ReLU(), nn.Linear(width, width), nn.ReLU()]\n"
CONFIGS = {
    "model/mynet": "_target_: mynet.MyNet\nwidth: 32\n",
    "optim/mine": "_target_: mynet.MyOptimizer\n_partial_: true\nlr: 0.003\n",
    "data/mine": "defaults: [_base, _self_]\nname: mine\nread: {_target_: mynet.read_mine, _partial_: true}\n",
    "augment/mine": "defaults: [none, _self_]\nsteps: {darken: {_target_: mynet.Darken, most: 0.3}}\n",
}
OWN = ("--config-dir=conf", "model=mynet", "optim=mine", "data=mine", "augment=mine", "data.limit=500")
OWN += ("trainer.max_epochs=2",)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with the user's files; every test imports them anew."""
    (tmp_path / "mynet.py").write_text(CODE)
    (tmp_path / "mylayers.py").write_text(LAYERS)
    for name, text in CONFIGS.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in ("mynet", "mylayers", "mydata"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def run_of(folder: Path, name: str = "mine") -> Path:
    (result,) = folder.glob(f"outputs/{name}/*/result.json")
    return result.parent


def result_of(folder: Path, name: str = "mine") -> dict[str, Any]:
    return json.loads((run_of(folder, name) / "result.json").read_text())


def code_of(stop: pytest.ExceptionInfo[SystemExit]) -> object:
    return stop.value.code


@pytest.mark.long
def test_a_network_goes_through_every_command(own: Path, main, capfd, ten_digits):
    assert main(*OWN).code == 0
    run = run_of(own)
    copied = shutil.copytree(run, own / "elsewhere" / "copied")
    accuracy = result_of(own)["metrics"]["test/acc"]
    assert accuracy > 0.3
    for place, trusting in ((run, "--trust=mynet"), (copied, "--config-dir=conf")):
        evaluate([str(place), trusting, f"out={own / 'out'}"])
        (scores,) = json.loads((own / "out" / "evaluation.json").read_text())["models"].values()
        assert scores["acc"] == pytest.approx(accuracy)
    export([str(run), "--trust", "mynet", "--onnx", "net.onnx"])
    assert "same predictions" in capfd.readouterr().out
    images, labels = ten_digits
    Image.fromarray(images[0]).save(own / "digit.png")
    with pytest.raises(SystemExit) as stop:
        predict([str(run), "--trust=mynet.MyNet", "digit.png"])
    assert code_of(stop) == 0
    import mynet  # type: ignore[import-not-found]

    for trust in ([mynet.MyNet], [mynet], ["mynet"], Trust(("mynet",)), "mynet", mynet, mynet.MyNet):
        found = Reader.load(run, trust=trust).read(list(images))
        assert len(found) == len(labels)
    assert gather(run, Trust(("mynet",)))


DATAMODULE = """
import lightning
from torch.utils.data import DataLoader, TensorDataset

from handwriting.data.digits import read_digits


class MyData(lightning.LightningDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        self.digits = read_digits()
        self.classes = self.digits.class_names

    def train_dataloader(self):
        part = self.digits.train
        return DataLoader(TensorDataset(part.images / 255, part.labels), self.batch_size, shuffle=True)

    def test_dataloader(self):
        part = self.digits.test
        return DataLoader(TensorDataset(part.images / 255, part.labels), self.batch_size)
"""


def test_a_lightning_datamodule_trains_as_the_same_images_do(own: Path, main):
    (own / "mydata.py").write_text(DATAMODULE)
    file = own / "conf" / "data" / "mydata.yaml"
    file.write_text("defaults: [_lightning, _self_]\nname: mydata\nread: {datamodule: {_target_: mydata.MyData}}\n")
    quick = ("trainer.max_epochs=1", "data.limit=300", "model=net")
    assert main("--config-dir=conf", "data=mydata", *quick).code == 0
    assert main("--config-dir=conf", "data=mine", *quick).code == 0
    mine, ours = (result_of(own, name) for name in ("mydata", "mine"))
    assert mine["metrics"] == ours["metrics"]
    assert list(mine["settings"]["code"]) == ["mydata"]
    with pytest.raises(UserError, match=r"names mydata\.MyData, which is not of this package"):
        evaluate_places(own, NO_TRUST)
    evaluate_places(own, Trust(("mydata",)))


def evaluate_places(own: Path, trust: Trust) -> None:
    from handwriting.inference.evaluation import group_by_images

    group_by_images([load_trained(run_of(own, "mydata") / "checkpoints" / "best.ckpt", trust)], "test", [])


def test_a_lightning_datamodule_as_target_is_told_the_lines_to_write(own: Path, main):
    (own / "mydata.py").write_text(DATAMODULE)
    target, lines = "_target_: mydata.MyData\n", "read: {datamodule: {_target_: mydata.MyData}}"
    for text, said in (
        (target, "of a LightningDataModule: [_lightning, _self_]) and name: NAME"),
        (f"{target}name: mydata\n", f"write defaults: [_lightning, _self_], name: NAME and {lines}"),
        (f"defaults: [_base, _self_]\n{target}name: mydata\n", lines),
    ):
        (own / "conf" / "data" / "mydata.yaml").write_text(text)
        outcome = main("--config-dir=conf", "data=mydata")
        assert outcome.code == 2
        assert said in outcome.errors


def test_without_trust_the_refusal_names_the_option(own: Path, main):
    assert main(*OWN).code == 0
    with pytest.raises(UserError, match=r"names mynet\.MyNet, which is not of this package.*--trust mynet"):
        Reader.load(run_of(own))


def test_an_untrusted_run_does_not_block_the_others(own: Path, main, capfd):
    assert main(*OWN, "name=study").code == 0
    assert main("data=digits", "data.limit=500", "trainer.max_epochs=1", "name=study").code == 0
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        evaluate([str(own / "outputs" / "study")])
    assert code_of(stop) == 1
    output = capfd.readouterr()
    assert "is not evaluated" in output.err
    assert "--trust mynet" in output.err
    assert "accuracy" in output.out


def test_changed_code_is_trained_again(own: Path, main, monkeypatch: pytest.MonkeyPatch):
    assert main(*OWN).code == 0
    before = result_of(own)
    again = main(*OWN)
    assert "already done" in again.output
    (own / "mylayers.py").write_text(LAYERS.replace("[nn.ReLU(), nn", "[nn.Tanh(), nn"))
    forget(monkeypatch)
    outcome = main(*OWN)
    assert outcome.code == 0
    assert "mynet changed since this run: it is trained again" in outcome.output
    after = result_of(own)
    assert after["fingerprint"] != before["fingerprint"]
    assert after["metrics"] != before["metrics"]


def test_changed_code_is_said_where_the_model_is_used(
    own: Path, main, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ten_digits
):
    assert main(*OWN).code == 0
    said = f"mynet changed since the training of {run_of(own).name}: the results may be wrong"
    for changed in (False, True):
        if changed:
            (own / "mylayers.py").write_text(LAYERS.replace("[nn.ReLU(), nn", "[nn.Tanh(), nn"))
        forget(monkeypatch)
        Image.fromarray(ten_digits[0][0]).save(own / "digit.png")
        with pytest.raises(SystemExit) as stop:
            predict([str(run_of(own)), "--trust=mynet", "digit.png", "digit.png"])
        assert code_of(stop) == 0
        assert capfd.readouterr().err.count(said) == changed


def test_a_broken_change_keeps_the_finished_run(own: Path, main, monkeypatch: pytest.MonkeyPatch):
    assert main(*OWN).code == 0
    before = result_of(own)
    (own / "mylayers.py").write_text("def middle(width):\n    return [no_such_layer]\n")
    forget(monkeypatch)
    assert main(*OWN).code != 0
    assert result_of(own) == before
    assert (run_of(own) / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize(
    ("target", "trust"),
    [
        ("os.system", ["mynet"]),
        ("subprocess.Popen", ["mynet"]),
        ("mynet.os.system", ["mynet"]),
        ("mynet.torch.hub.load", ["mynet"]),
        ("builtins.eval", ["mynet"]),
        ("handwriting.data.downloads.download_once", ["handwriting"]),
    ],
)
def test_what_is_not_of_the_module_is_refused_in_any_case(own: Path, digits_run: Path, target: str, trust: list[str]):
    file = checkpoint_with(digits_run, own / "net.ckpt", model={"_target_": target, "command": "true"})
    for given in (NO_TRUST, Trust.of(trust), Trust((), (own / "conf",))):
        with pytest.raises(UserError, match="it is not loaded"):
            load_trained(file, given)


def test_an_interpolation_in_a_checkpoint_is_refused_before_it_is_resolved(own: Path, main, capfd):
    assert main(*OWN).code == 0
    file, made = run_of(own) / "checkpoints" / "best.ckpt", own / "made"
    content = torch.load(file, weights_only=True)
    evil = f"${{oc.create:{{_target_:pathlib.Path.touch,self:{{_target_:pathlib.Path,_args_:['{made}']}}}}}}"
    for group in ("model", "data"):
        changed = copy.deepcopy(content)
        changed["handwriting"]["settings"][group]["more"] = [{"deep": evil}]
        torch.save(changed, file)
        with pytest.raises(SystemExit) as stop:
            evaluate([str(file), "--trust", "mynet", f"out={own / 'out'}"])
        assert code_of(stop) == 2
        assert f"in its settings of {group}: it is not loaded" in capfd.readouterr().err
    assert not made.exists()


def test_a_config_folder_trusts_only_its_groups(own: Path):
    (own / "outputs" / "evil" / ".hydra").mkdir(parents=True)
    (own / "outputs" / "evil" / ".hydra" / "config.yaml").write_text("model: {_target_: pandas.read_pickle}")
    (own / "model").mkdir()
    (own / "model" / "mine.yaml").write_text("_target_: mynet.MyNet\n")
    trust = Trust((), (own,))
    trust.check({"_target_": "mynet.MyNet"}, "model", own)
    with pytest.raises(
        UserError, match=r"names pandas\.read_pickle, which is not of this package.*--trust pandas\.read"
    ):
        trust.check({"_target_": "pandas.read_pickle"}, "model", own)
    (own / "model" / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"broken\.yaml is not a config file in YAML"):
        trust.check({"_target_": "mynet.MyNet"}, "model", own)


def test_of_a_library_only_single_classes_are_trusted(tmp_path: Path):
    trust = Trust.of(["torch.nn.ReLU", "torch.nn"])
    trust.check({"_target_": "torch.nn.ReLU"}, "model", tmp_path)
    for target in ("torch.nn.Tanh", "torch.load", "torch.hub.load"):
        with pytest.raises(UserError, match=rf"--trust {target}, or"):
            trust.check({"_target_": target}, "model", tmp_path)


def checkpoint_with(run: Path, file: Path, **settings: object) -> Path:
    """Write the checkpoint of a run with other settings."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["handwriting"]["settings"] |= settings
    torch.save(content, file)
    return file


@pytest.mark.parametrize(
    "call",
    [
        {"_target_": "os.system", "command": "touch called"},
        {"_target_": "subprocess.Popen", "args": "touch called", "shell": True},
    ],
    ids=lambda call: call["_target_"],
)
@pytest.mark.parametrize("group", ["model", "data", "augment", "optim"])
def test_a_call_of_the_system_is_refused_under_every_option(
    own: Path, digits_run: Path, capfd: pytest.CaptureFixture[str], ten_digits, group: str, call: dict[str, Any]
):
    """What no command makes from a checkpoint, such as the optimizer, is not called either."""
    (own / "conf" / "model" / "call.yaml").write_text(json.dumps(call))
    Image.fromarray(ten_digits[0][0]).save(own / "digit.png")
    settings = torch.load(digits_run / "checkpoints" / "best.ckpt", weights_only=True)["handwriting"]["settings"]
    inside = {"model": {"activation": call}, "data": {"read": call}, "augment": {"steps": {"call": call}}}
    for config in (call, inside.get(group, call)):
        file = checkpoint_with(digits_run, own / "net.ckpt", **{group: settings[group] | config})
        arguments = [str(file), "out=out"] if group == "data" else [str(file), "digit.png", "--views=2"]
        for option in ([], ["--trust=os"], ["--trust=subprocess"], ["--trust=mynet"], ["--config-dir=conf"]):
            with pytest.raises(SystemExit) as stop:
                (evaluate if group == "data" else predict)([*arguments, *option])
            if group != "optim" or option in (["--trust=os"], ["--trust=subprocess"]):
                assert code_of(stop) == 2
                assert "of Python's standard library" in capfd.readouterr().err
        for trust in ([os.system], [subprocess.Popen], ["os"], ["subprocess"]):
            with pytest.raises(UserError, match="of Python's standard library"):
                Reader.load(file, trust=trust)
    assert not (own / "called").exists()


@pytest.mark.parametrize("thing", ["os", "subprocess.Popen", "my net", "", "torch", "numpy"])
def test_what_cannot_be_trusted_is_refused(thing: str):
    with pytest.raises(UserError, match="trust="):
        Trust.of([thing])


NETS = {
    "too_many": ("super().__init__(); self.layer = nn.LazyLinear(num_classes + 2)", "self.layer(x.flatten(1))"),
    "a_tuple": ("super().__init__(); self.layer = nn.LazyLinear(num_classes)", "(self.layer(x.flatten(1)), x)"),
    "flat": ("super().__init__(); self.layer = nn.LazyLinear(num_classes)", "self.layer(x.flatten(1)).flatten()"),
    "broken": ("super().__init__(); self.layer = nn.Linear(3, num_classes)", "self.layer(x.flatten(1))"),
    "nothing_to_train": ("super().__init__()", "x.flatten(1)[:, :10]"),
    "a_tuple_in_training": (
        "super().__init__(); self.layer = nn.LazyLinear(num_classes)",
        "(self.layer(x.flatten(1)), x) if self.training else self.layer(x.flatten(1))",
    ),
    "broken_in_training": (
        "super().__init__(); self.layer = nn.LazyLinear(num_classes)",
        "x.no_such_name if self.training else self.layer(x.flatten(1))",
    ),
    "broken_and_lazy": ("super().__init__(); self.norm = nn.LazyBatchNorm2d()", "self.norm(x.absent)"),
    "no_super": ("self.layer = nn.Linear(3, num_classes)", "x"),
    "a_name": ("super().__init__(); self.layer = no_such_layer", "x"),
    "a_key": ("super().__init__(); self.layer = {}['absent']", "x"),
    "a_shape": ("import torch; torch.zeros(2, 3) @ torch.zeros(2, 3)", "x"),
}
SENTENCES = {
    "too_many": "but there are 10 classes: end with nn.Linear(…, num_classes)",
    "a_tuple": "forward returns a tuple, but forward(images) returns the logits",
    "flat": "forward returns torch.float32 (20,) for 2 images, but forward(images) returns the logits",
    "broken": "fails on images of digits (2 × 1 × 28 × 28): RuntimeError: mat1 and mat2 shapes cannot be multiplied "
    "(2x784 and 3x10) (net_broken.py, line 8).",
    "nothing_to_train": "has no parameter to train",
    "no_num_classes": "takes no argument 'num_classes': write num_classes: int, image_size: tuple[int, int]",
    "no_image_size": "takes no argument 'image_size': write num_classes: int, image_size: tuple[int, int]",
    "a_tuple_in_training": "forward returns a tuple in train mode, but forward(images) returns the logits",
    "broken_in_training": "fails in train mode on images of digits (2 × 1 × 28 × 28): AttributeError: 'Tensor' object "
    "has no attribute 'no_such_name' (net_broken_in_training.py, line 8).",
    "broken_and_lazy": "'Tensor' object has no attribute 'absent' (net_broken_and_lazy.py, line 8).",
    "no_forward": '(2 × 1 × 28 × 28): NotImplementedError: Module [Net] is missing the required "forward" function.',
    "no_super": "model: AttributeError: cannot assign module before Module.__init__() call (net_no_super.py, line 6).",
    "a_name": "model: NameError: name 'no_such_layer' is not defined (net_a_name.py, line 6).",
    "a_key": "model: KeyError: 'absent' (net_a_key.py, line 6).",
    "a_shape": "model: RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3) (net_a_shape.py, line 6).",
    "no_arguments": "takes no argument 'num_classes': write num_classes: int, image_size: tuple[int, int]",
    "no_init": "takes no argument 'num_classes': write num_classes: int, image_size: tuple[int, int]",
    "an_error_while_imported": "model._target_=net_an_error_while_imported.Net is not an importable class or function: "
    "NameError: name 'absent' is not defined (net_an_error_while_imported.py, line 4).",
    "no_python": "is not an importable class or function: ",
    "no_module": "makes a dict, but a torch.nn.Module is expected",
    "lightning": "is a LightningModule, but training is this package's",
}
MORE = {
    "no_num_classes": "class Net(nn.Module):\n    def __init__(self, image_size): super().__init__()\n",
    "no_image_size": "class Net(nn.Module):\n    def __init__(self, num_classes): super().__init__()\n",
    "no_forward": "class Net(nn.Module):\n    def __init__(self, num_classes, image_size): super().__init__()\n",
    "no_arguments": "class Net(nn.Module):\n    def __init__(self): super().__init__()\n",
    "no_init": "class Net(nn.Module):\n    pass\n",
    "an_error_while_imported": "absent\n",
    "no_python": "class Net(:\n",
    "no_module": "def Net(num_classes, image_size): return {}\n",
    "lightning": "class Net(lightning.LightningModule):\n"
    "    def __init__(self, num_classes, image_size): super().__init__()\n",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_network_is_checked_before_anything_is_written(own: Path, main, kind: str):
    code = MORE.get(kind)
    if code is None:
        made, returned = NETS[kind]
        code = f"class Net(nn.Module):\n    def __init__(self, num_classes, image_size):\n        {made}\n"
        code += f"    def forward(self, x):\n        return {returned}\n"
    (own / f"net_{kind}.py").write_text(f"import lightning\nfrom torch import nn\n\n{code}")
    (own / "conf" / "model" / "mynet.yaml").write_text(f"_target_: net_{kind}.Net\n")
    outcome = main("--config-dir=conf", "model=mynet", "data=digits", "data.limit=200")
    assert outcome.code == 2
    assert SENTENCES[kind] in outcome.errors
    assert len(outcome.errors.strip().splitlines()) == 1
    assert not list(own.glob("outputs/*/*/checkpoints"))


@pytest.mark.parametrize(
    ("file", "text", "arguments", "sentence"),
    [
        ("optim/mine", "_target_: mynet.MyOptimizer\nlr: 0.1\n", ["optim=mine"], "needs _partial_: true"),
        ("experiment/mine", "optim: {lr: 0.1}\n", ["experiment=mine"], "begin it with the line # @package _global_"),
        ("model/mynet", "_target_: mynet.Other\n", ["model=mynet"], "model._target_=mynet.Other is not an importable"),
        ("model/mynet", "_target_: nowhere.Net\n", ["model=mynet"], "No module named 'nowhere'"),
        ("model/mynet", "_target_: mynet.MyNet\n", ["model=knn", "model.activation=relu"], "model=knn has no setting"),
    ],
)
def test_bad_config_files_get_one_sentence(own: Path, main, file: str, text: str, arguments: list[str], sentence: str):
    path = own / "conf" / f"{file}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    outcome = main("--config-dir=conf", "data=digits", "data.limit=200", *arguments)
    assert outcome.code == 2
    assert sentence in outcome.errors
    assert len(outcome.errors.strip().splitlines()) == 1


BROKEN = {
    "optim": "class Broken(torch.optim.Adam):\n    def __init__(self, parameters): {}['absent']\n",
    "loss": "class Broken(nn.Module):\n    def forward(self, logits, labels): return {}['absent']\n",
    "data": "def Broken(): return {}['absent']\n",
    "augment": "class Broken:\n    def __init__(self): {}['absent']\n",
}
CONFIGS_OF_BROKEN = {
    "optim": "_target_: broken_optim.Broken\n_partial_: true\n",
    "loss": "_target_: broken_loss.Broken\n",
    "data": "defaults: [_base, _self_]\nname: broken\nread: {_target_: broken_data.Broken, _partial_: true}\n",
    "augment": "defaults: [none, _self_]\nsteps: {broken: {_target_: broken_augment.Broken}}\n",
}


@pytest.mark.parametrize("group", BROKEN)
def test_an_error_of_the_users_code_names_its_line(own: Path, main, group: str):
    (own / f"broken_{group}.py").write_text(f"import torch\nfrom torch import nn\n\n{BROKEN[group]}")
    file = own / "conf" / group / "broken.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(CONFIGS_OF_BROKEN[group])
    data = [] if group == "data" else ["data=digits"]
    outcome = main("--config-dir=conf", "data.limit=200", f"{group}=broken", *data)
    assert outcome.code == 2
    line = 4 if group == "data" else 5
    assert f"{group}: KeyError: 'absent' (broken_{group}.py, line {line})." in outcome.errors
    assert len(outcome.errors.strip().splitlines()) == 1


def test_lbfgs_trains(main, tmp_path: Path):
    settings = ("data=digits", "data.limit=400", "data.batch_size=200", "trainer.max_epochs=4", "optim=lbfgs")
    assert main(*settings, "model=net").code == 0
    (result,) = tmp_path.glob("outputs/digits/*/result.json")
    assert json.loads(result.read_text())["metrics"]["test/acc"] > 0.6
    refused = main(*settings, "model=net", "compile=graph", "name=graph")
    assert refused.code == 2
    assert "as LBFGS does" in refused.errors
