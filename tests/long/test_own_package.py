"""A package of a user's own, installed nowhere, through every command: with the clone, and with our wheel alone."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handwriting.data.digits import read_digits

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = {
    "__init__.py": '"""Networks and data of our group."""\n',
    "network.py": """
from torch import nn

from .layers import hidden


class Network(nn.Module):
    def __init__(self, num_classes, image_size, width=32):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(image_size[0] * image_size[1], width), *hidden(width))
        self.last = nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.last(self.layers(images))
""",
    "layers.py": """
from torch import nn


def hidden(width):
    return [nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
""",
    "optimizer.py": """
import torch


class Optimizer(torch.optim.Adam):
    pass
""",
    "data.py": """
import numpy as np
import torch

from handwriting.data.dataset import HandwritingSet, LabelledImages


def load(path):
    with np.load(path) as arrays:
        pairs = [(arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in ("training", "test")]
    splits = [LabelledImages(torch.from_numpy(images)[:, None], torch.from_numpy(labels)) for images, labels in pairs]
    return HandwritingSet(*splits, tuple("abcdefghij"))
""",
    "augment.py": """
import os
import signal

import torch


class Darken:
    def __init__(self, most):
        self.most, self.calls = most, 0

    def __call__(self, pixels, targets, classes, generator):
        self.calls += 1
        if os.environ.get("KILL_AT") == str(self.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels * (1 - self.most * torch.rand(len(pixels), 1, 1, 1, generator=generator)), targets
""",
}
CONFIGS = {
    "model/group_net.yaml": "_target_: group.network.Network\nwidth: 32\n",
    "optim/group_optim.yaml": "_target_: group.optimizer.Optimizer\n_partial_: true\nlr: 0.003\n",
    "data/group_data.yaml": "defaults: [_base, _self_]\nname: group_data\npath: group.npz\n"
    "read: {_target_: group.data.load, _partial_: true}\n",
    "augment/group_augment.yaml": "defaults: [none, _self_]\n"
    "steps: {darken: {_target_: group.augment.Darken, most: 0.3}}\n",
    "experiment/group.yaml": "# @package _global_\ndefaults:\n  - override /model: group_net\n"
    "  - override /optim: group_optim\n  - override /data: group_data\n  - override /augment: group_augment\n"
    "name: group\ntrainer: {max_epochs: 4}\n",
}
EXPERIMENT = ("--config-dir=my_conf", "experiment=group")
RATES = "optim.lr=0.003,0.01"
FIRST = "optim.lr=0.003"
PREDICT = """
import sys
from group.network import Network
from handwriting.reader import Reader
for trust in ([Network], ["group"]):
    print(*(one.name for one in Reader.load(sys.argv[1], trust=trust).read(sys.argv[2:])))
"""


@dataclass(frozen=True)
class Project:
    """The user's working folder, and how the commands are started there."""

    folder: Path
    run: list[str]  # the command that trains
    environment: dict[str, str]

    def call(self, command: list[str], *arguments: object, code: int = 0, **environment: str) -> str:
        """Start a command and return what it prints on stdout."""
        done = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{command} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def module(self, name: str, *arguments: object) -> str:
        """Start ``python -m handwriting.NAME`` and return what it prints on stdout."""
        return self.call([sys.executable, "-m", f"handwriting.{name}"], *arguments)

    def records(self, name: str) -> dict[float, dict[str, Any]]:
        """Return the records of outputs/NAME by learning rate."""
        records = [json.loads(file.read_text()) for file in self.folder.glob(f"outputs/{name}/*/result.json")]
        return {record["settings"]["optim"]["lr"]: record for record in records}


def write_project(folder: Path) -> None:
    """Write the package, its config files and its data: bundled digits under other names."""
    for place, files in (("group", PACKAGE), ("my_conf", CONFIGS)):
        for name, text in files.items():
            (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_text(text)
    digits, arrays = read_digits(), {}
    for name, split, most in (("training", digits.train, 500), ("test", digits.test, 200)):
        arrays |= {f"{name}_images": split.images[:most, 0].numpy(), f"{name}_labels": split.labels[:most].numpy()}
    np.savez(folder / "group.npz", **arrays)
    for number in range(3):
        Image.fromarray(arrays["test_images"][number]).save(folder / f"{number}.png")


@pytest.fixture(scope="module", params=["clone", "wheel"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The working folder after a sweep over two learning rates."""
    folder, site = tmp_path_factory.mktemp("project"), ROOT
    write_project(folder)
    run = [sys.executable, "-m", "handwriting.run"]
    if request.param == "wheel":
        site = tmp_path_factory.mktemp("site")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
        subprocess.run([*install, str(request.getfixturevalue("wheel"))], check=True, timeout=120)
        run = [str(site / "bin" / "handwriting")]
    made = Project(folder, run, os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "COLUMNS": "120"})
    assert made.call([sys.executable, "-c", "import handwriting; print(handwriting.__file__)"]).startswith(str(site))
    made.call(run, "-m", *EXPERIMENT, RATES)
    return made


@pytest.fixture(scope="module")
def copied(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the sweep, copied elsewhere; tests/test_own_components.py uses one where it was trained."""
    (run,) = project.folder.glob("outputs/group/*lr=0.003*")
    return shutil.copytree(run, tmp_path_factory.mktemp("elsewhere") / "copied")


def test_a_sweep_is_trained_and_compared(project: Project):
    records = project.records("group")
    assert sorted(records) == [0.003, 0.01]
    assert all(record["metrics"]["test/acc"] > 0.5 for record in records.values())
    assert "already done" in project.call(project.run, *EXPERIMENT, FIRST)
    assert "optim.lr=0.003" in project.module("compare", "outputs/group")


def test_a_killed_run_resumes_to_the_same_result(project: Project):
    command = (*EXPERIMENT, FIRST, "name=killed")
    project.call(project.run, *command, code=-signal.SIGKILL, KILL_AT="20")
    assert project.records("killed")[0.003]["status"] == "running"
    project.call(project.run, *command)
    record = project.records("killed")[0.003]
    assert len(record["resumed"]) == 1
    assert record["metrics"] == project.records("group")[0.003]["metrics"]


def test_two_processes_train_it(project: Project):
    project.call(project.run, *EXPERIMENT, FIRST, "name=ddp", "trainer=ddp", "trainer.accelerator=cpu")
    record = project.records("ddp")[0.003]
    assert record["device"].startswith("2 × cpu")
    assert record["metrics"]["test/acc"] > 0.5


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_come_to_the_results_of_a_serial_sweep(project: Project, launcher: str):
    project.call(project.run, "-m", *EXPERIMENT, RATES, f"name={launcher}", f"hydra/launcher={launcher}")
    serial, parallel = project.records("group"), project.records(launcher)
    assert {rate: run["metrics"] for rate, run in parallel.items()} == {r: run["metrics"] for r, run in serial.items()}


def test_a_copied_run_is_evaluated_predicts_and_is_exported(project: Project, copied: Path, tmp_path: Path):
    project.module("evaluate", copied, "--config-dir", "my_conf", f"out={tmp_path}")
    (scores,) = json.loads((tmp_path / "evaluation.json").read_text())["models"].values()
    assert scores["acc"] == pytest.approx(project.records("group")[0.003]["metrics"]["test/acc"])
    files = [f"{number}.png" for number in range(3)]
    project.module("predict", copied, "--trust", "group", *files, "--csv", tmp_path / "predicted.csv")
    predicted = pd.read_csv(tmp_path / "predicted.csv")["prediction"].tolist()
    assert set(predicted) <= set("abcdefghij")
    printed = project.call([sys.executable, "-c", PREDICT], copied, *files)
    assert printed.splitlines() == 2 * [" ".join(predicted)]
    said = project.module("export", copied, "--config-dir", "my_conf", "--onnx", tmp_path / "net.onnx")
    assert "same predictions" in said


def test_the_page_classifies_with_a_copied_run(project: Project, copied: Path, page_of: Callable[..., Any]):
    pytest.importorskip("gradio")
    content = io.BytesIO()
    Image.open(project.folder / "0.png").resize((420, 420)).save(content, "png")
    drawing = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with page_of(project.folder, str(copied), "--trust=group", **project.environment) as (address, _):
        config = json.load(opener.open(f"{address}/config", timeout=30))
        choice = next(one["props"]["value"] for one in config["components"] if one["props"].get("elem_id") == "choice")
        sent = {"data": [choice, drawing], "fn_index": config["dependencies"][0]["id"], "session_hash": "test"}
        request = urllib.request.Request(
            f"{address}{config['api_prefix']}/run/predict",
            json.dumps(sent).encode(),
            {"Content-Type": "application/json"},
        )
        assert json.load(opener.open(request, timeout=30))["data"][0]["label"] in set("abcdefghij")
