"""No step asks for the value of a tensor, for which a GPU would have to come to the end of its work first.

Where there is no GPU, the operations that would wait are counted: as many for ten steps of an epoch as for two.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils._python_dispatch import TorchDispatchMode

from handwriting.data import Augmentation, DataModule
from handwriting.data.digits import read_digits
from handwriting.models.net import Net
from handwriting.runs.config import CONF
from handwriting.runs.instantiate import build
from handwriting.training.module import Classifier

# What torch.cuda.set_sync_debug_mode reports, as far as it can be seen without a GPU.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero", "equal"}


class Waits(TorchDispatchMode):
    """Counts the operations that would wait; an index by truth values is one of them."""

    def __init__(self):
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        by_truth = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or by_truth:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@cache
def parts(augment: str) -> tuple[Augmentation, Callable[..., torch.optim.Optimizer]]:
    """Return this augmentation and the default optimizer's maker."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"augment={augment}"])
    return build("augment", config.augment), build("optim", config.optim)


def waits(tmp_path: Path, steps: int, augment: str) -> Counter[str]:
    """Return how often an epoch of so many steps would wait."""
    augmentation, optimizer = parts(augment)
    data = DataModule("digits", read_digits, batch_size=16, limit=200, augmentation=augmentation)
    trainer = lightning.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=1,
        accelerator="cpu",
        default_root_dir=str(tmp_path),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with Waits() as seen:
        trainer.fit(Classifier(Net(), optimizer, None, 10, *data.mean_and_std()), data)
    return seen.seen


@pytest.mark.parametrize("augment", sorted(file.stem for file in (CONF / "augment").glob("*.yaml")))
def test_no_step_waits(tmp_path: Path, augment: str):
    assert waits(tmp_path, 10, augment) == waits(tmp_path, 2, augment)


def test_a_step_that_asks_for_a_value_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained = Classifier.training_step

    def training_step(*step: Any) -> torch.Tensor:
        loss = trained(*step)
        return loss * 2 if loss.item() < 0 else loss

    monkeypatch.setattr(Classifier, "training_step", training_step)
    assert waits(tmp_path, 10, "none")["_local_scalar_dense"] == waits(tmp_path, 2, "none")["_local_scalar_dense"] + 8
