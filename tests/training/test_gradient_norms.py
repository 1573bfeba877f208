"""Gradient norms are those that autograd gives by hand, once an epoch, in metrics.csv and in TensorBoard."""

from functools import partial
from pathlib import Path

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from handwriting.data import DataModule
from handwriting.data.digits import read_digits
from handwriting.models.net import Net
from handwriting.training.callbacks import GradientNorms
from handwriting.training.module import Classifier

LAYERS = ["features.0.0", "features.1.0", "classifier.0", "classifier.2"]


def test_they_are_the_means_over_the_steps_of_an_epoch(tmp_path: Path):
    data = DataModule("digits", read_digits, batch_size=160, limit=320, shuffle_seed=3)
    torch.manual_seed(0)
    model = Classifier(Net(), partial(torch.optim.SGD, lr=0.0), None, 10, *data.mean_and_std())  # keeps its weights
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[GradientNorms()],
        gradient_clip_val=0.001,  # the norms are those before clipping
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data)

    norms = {layer: [] for layer in LAYERS}
    for images, labels in data.train_dataloader():
        weights = [model.net.get_parameter(f"{layer}.weight") for layer in LAYERS]
        gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), weights)  # type: ignore[arg-type]
        for layer, gradient in zip(LAYERS, gradients, strict=True):
            norms[layer].append(gradient.norm().item())
    row = pd.read_csv(tmp_path / "metrics.csv").dropna(subset="grad/classifier.2")
    assert len(row) == 1
    assert sorted(name for name in row if name.startswith("grad/")) == sorted(f"grad/{layer}" for layer in LAYERS)
    for layer, (one, other) in norms.items():
        assert row[f"grad/{layer}"].item() == pytest.approx((one + other) / 2, rel=1e-3)


def test_a_command_adds_them(main, tmp_path: Path):
    gradients = "+callbacks.gradients={_target_: handwriting.training.callbacks.GradientNorms}"
    assert main("data=digits", "data.limit=64", "trainer.max_epochs=2", gradients).code == 0
    (result,) = tmp_path.glob("outputs/digits/*/result.json")
    norms = pd.read_csv(result.with_name("metrics.csv"))[["epoch", "grad/features.0.0"]].dropna()
    assert norms["epoch"].tolist() == [0, 1]
    assert all(norm > 0 for norm in norms["grad/features.0.0"])
    events = EventAccumulator(str(result.parent)).Reload()
    assert {f"grad/{layer}" for layer in LAYERS} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("grad/features.0.0")) == 2
