"""On a CUDA device: the results of the CPU within rounding, no waiting in a step, and every command after training."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch.nn import functional as F

from handwriting.data import DataModule
from handwriting.data.digits import read_digits
from handwriting.models.baselines import Baseline
from handwriting.models.image_classifier import ImageClassifier
from handwriting.models.net import Net
from handwriting.runs.config import CONF
from handwriting.runs.instantiate import build
from handwriting.training.graphs import GraphClassifier
from handwriting.training.module import Classifier

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none here"),
]

DIGITS = ("data=digits", "data.limit=400", "trainer.max_epochs=2", "trainer.log_every_n_steps=1")
MODELS = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
MODES = {"plain": "compile=false", "graph": "compile=graph"}


@pytest.fixture
def exact() -> Iterator[None]:
    """Multiply in float32, not in TF32, which has three digits."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")  # not cuda.matmul.allow_tf32, with which this raises an error
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def record_of(folder: Path, name: str = "digits") -> dict[str, Any]:
    (path,) = folder.glob(f"outputs/{name}/*/result.json")
    return json.loads(path.read_text())


def step_losses(folder: Path, name: str) -> list[float]:
    (path,) = folder.glob(f"outputs/{name}/*/metrics.csv")
    return pd.read_csv(path)["train/loss_step"].dropna().tolist()


@pytest.mark.parametrize("model", MODELS)
def test_outputs_and_gradients_match_the_cpu(model: str, exact: None):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"model={model}"])
    torch.manual_seed(0)
    net = build("model", config.model, num_classes=10, image_size=(28, 28))
    if isinstance(net, Baseline):
        pytest.skip(f"{model} is a classical baseline, which scikit-learn trains on the CPU")
    images = torch.randint(0, 256, (16, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (16,))
    results = []
    for device in ("cpu", "cuda"):
        classifier = ImageClassifier(net, 0.13, 0.31).to(device).eval()  # without dropout
        classifier.zero_grad()
        logits = classifier(images.to(device))
        F.cross_entropy(logits, labels.to(device)).backward()
        results.append([logits.cpu(), *(p.grad.cpu() for p in classifier.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item() + 1e-7)


@pytest.mark.parametrize("augment", ["none", "affine", "mixup", "strong"])
@pytest.mark.parametrize("kind", [Classifier, GraphClassifier])
def test_no_step_waits_for_the_device(tmp_path: Path, kind: type[Classifier], augment: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"augment={augment}"])
    data = DataModule("digits", read_digits, batch_size=16, augmentation=build("augment", config.augment))
    data.in_lists = kind is GraphClassifier
    model = kind(Net(), build("optim", config.optim), None, 10, *data.mean_and_std())

    class Strict(lightning.Callback):
        """Refuses to wait between the end of the first batch, or list of batches, and that of the last."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            last = trainer.fit_loop.epoch_loop.batch_progress.current.ready == trainer.num_training_batches
            torch.cuda.set_sync_debug_mode("default" if last else "error")

    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    try:
        lightning.Trainer(
            max_epochs=2, accelerator="cuda", devices=1, log_every_n_steps=10_000, callbacks=[Strict()], **options
        ).fit(model, data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert model.history[-1]["train/loss"] < model.history[0]["train/loss"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("optim=sgd",),
        ("optim=adagrad", "scheduler=onecycle"),
        ("optim=muon", "augment=affine"),
        ("model=glyph_net", "augment=mixup"),
    ],
    ids=" ".join,
)
def test_graphs_train_as_single_steps_do(main, tmp_path: Path, overrides: tuple[str, ...]):
    for mode, override in MODES.items():
        assert main(*DIGITS, *overrides, override, f"name={mode}").code == 0
    plain, graph = (step_losses(tmp_path, mode) for mode in MODES)
    assert graph[:4] == pytest.approx(plain[:4], rel=1e-2)  # later, rounding grows
    assert len(graph) == len(plain)


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupted_run_resumes_on_the_device(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
    kind: Any = GraphClassifier if mode == "graph" else Classifier
    trained = kind.training_step

    def stop(model: Classifier, *arguments: Any) -> Any:
        if model.current_epoch == 1:
            raise KeyboardInterrupt
        return trained(model, *arguments)

    monkeypatch.setattr(kind, "training_step", stop)
    assert main(*DIGITS, MODES[mode], "model.dropout=0.3").code == 130
    monkeypatch.setattr(kind, "training_step", trained)
    assert main(*DIGITS, MODES[mode], "model.dropout=0.3").code == 0
    assert record_of(tmp_path)["resumed"] == [25]
    assert main(*DIGITS, MODES[mode], "model.dropout=0.3", "name=whole").code == 0
    assert step_losses(tmp_path, "digits") == pytest.approx(step_losses(tmp_path, "whole"), rel=0.05)


@pytest.mark.parametrize(
    "override",
    ["average=ema", "average=swa", "trainer.precision=bf16-mixed", "trainer.precision=16-mixed", "compile=true"],
)
def test_training_on_the_device_with(main, tmp_path: Path, override: str):
    assert main(*DIGITS, override, "model.widths=[8,16]", "model.hidden=[32]").code == 0
    record = record_of(tmp_path)
    assert record["device"] == torch.cuda.get_device_name()
    assert record["metrics"]["train/acc"] > 0.2


def test_bf16_with_graphs(main, tmp_path: Path):
    for mode, override in MODES.items():
        assert main(*DIGITS, "trainer.precision=bf16-mixed", override, f"name={mode}").code == 0
    plain, graph = (step_losses(tmp_path, mode) for mode in MODES)
    assert graph[:4] == pytest.approx(plain[:4], rel=2e-2)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_from_the_device_is_used_with_and_without_one(main, command: Callable, tmp_path: Path, mode: str):
    assert main(*DIGITS, "trainer.max_epochs=4", MODES[mode], figures=True).code == 0
    (run,) = tmp_path.glob("outputs/digits/*/")
    accuracy = f"{record_of(tmp_path)['metrics']['test/acc']:.2%}"
    for devices in ("0", ""):  # of CUDA_VISIBLE_DEVICES
        evaluated = command("handwriting.evaluate", str(run), CUDA_VISIBLE_DEVICES=devices)
        assert evaluated.returncode == 0, evaluated.stderr
        assert accuracy in evaluated.stdout
    picture = tmp_path / "digit.png"
    Image.fromarray(read_digits().test.images[0, 0].numpy()).save(picture)
    predicted = command("handwriting.predict", str(run), str(picture), CUDA_VISIBLE_DEVICES="0")
    assert predicted.returncode == 0, predicted.stderr
    exported = command("handwriting.export", str(run), "--onnx", str(tmp_path / "model.onnx"))
    assert exported.returncode == 0, exported.stderr


def test_two_jobs_share_the_device(command: Callable, tmp_path: Path):
    together = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = command("handwriting.run", "-m", *DIGITS, *together, "optim=sgd,adam", "compile=graph")
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/digits/*/result.json")]
    assert [record["status"] for record in records] == ["done", "done"]
    assert {record["device"] for record in records} == {torch.cuda.get_device_name()}
