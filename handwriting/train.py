"""One job with its objects: build them from the config, fit, test the chosen weights, say what came out."""

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig
from rich.console import Console

from handwriting.classifier import Classifier
from handwriting.data import DataModule
from handwriting.errors import LARGEST_SEED, UserError, check_whole
from handwriting.plots import draw_confusion, draw_gallery
from handwriting.progress import RunBar
from handwriting.results import flatten, setting_of

# Lightning's remarks on devices, tips and epochs reached, once a job, would drown a sweep.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*does not have many workers.*")
warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")
warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
warnings.filterwarnings("ignore", ".*number of training batches.*smaller than the logging interval.*")


@dataclass
class Job:
    """The objects of a run, ready to train; nothing is written yet."""

    data: DataModule
    model: Classifier
    trainer: lightning.Trainer
    tensorboard: TensorBoardLogger


def build_job(config: DictConfig, settings: dict[str, Any], folder: Path, title: str) -> Job:
    """Read the data and make what ``config`` describes; UserError when it cannot be.

    ``settings`` is the config as plain data, for the checkpoint; ``title`` is what the bar says.
    """
    check_whole("seed", config.seed, at_least=0, at_most=LARGEST_SEED)
    _check_lengths(config.trainer)
    lightning.seed_everything(config.seed, verbose=False)
    data: DataModule = build("data", config.data)
    net = build("model", config.model, num_classes=len(data.class_names), image_size=data.image_size)
    mean, std = data.mean_and_std()
    facts = {"settings": settings, "class_names": list(data.class_names), "image_size": list(data.image_size)}
    optimizer, scheduler = build("optim", config.optim), build("scheduler", config.scheduler)
    model = Classifier(net, optimizer, scheduler, len(data.class_names), mean, std, facts)
    tensorboard = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    callbacks = [build("callbacks", callback) for callback in config.callbacks.values() if callback]
    if config.trainer.enable_progress_bar:
        callbacks.append(RunBar(title, Console(stderr=True)))
    trainer: lightning.Trainer = build(
        "trainer",
        config.trainer,
        logger=[CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1000), tensorboard],
        callbacks=callbacks,
        default_root_dir=str(folder),
        enable_progress_bar=False,  # RunBar is the bar
    )
    return Job(data, model, trainer, tensorboard)


def train_job(job: Job, shown: dict[str, Any]) -> dict[str, Any]:
    """Train into the run's folder and return the fields of result.json that it found out.

    ``shown`` goes to TensorBoard's HPARAMS tab.
    """
    _show_images(job.tensorboard, job.data)
    outcome = fit_and_test(job.data, job.model, job.trainer)
    _show_result(job.tensorboard, job.data, job.model, outcome["metrics"], shown)
    return outcome


def fit_and_test(data: DataModule, model: Classifier, trainer: lightning.Trainer) -> dict[str, Any]:
    """Fit, load the weights that validation chose, test them once; return metrics, epochs, seconds, sizes."""
    start = time.perf_counter()
    try:
        trainer.fit(model, data)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    seconds = time.perf_counter() - start
    best, chosen = _chosen_epoch(trainer, model.history)
    trainer.test(model, data, ckpt_path=best, weights_only=True, verbose=False)
    metrics = {name: value for name, value in chosen.items() if name != "epoch"} | model.test_metrics
    return {
        "metrics": metrics,
        "chosen_epoch": int(chosen["epoch"]) + 1,
        "epochs": len(model.history),
        "seconds": round(seconds, 3),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": _device(trainer),
    }


def build(kind: str, config: Any, **more: Any) -> Any:
    """Instantiate a part of the config; what its maker finds wrong becomes a UserError that names the part."""
    if not config:
        return None
    try:
        return instantiate(config, _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause is None or isinstance(cause, (TypeError, ValueError, MisconfigurationException)):
            raise UserError(f"{kind}: {' '.join(str(cause or error).split())}") from error
        raise


def _check_lengths(trainer: DictConfig) -> None:
    check_whole("trainer.max_epochs", trainer.max_epochs, at_least=1)
    for part in ("train", "val", "test"):
        limit = trainer[f"limit_{part}_batches"]
        if not isinstance(limit, (int, float)) or limit <= 0:
            raise UserError(f"trainer.limit_{part}_batches={limit} must be above 0: a share (0.5) or batches (5).")


def _chosen_epoch(trainer: lightning.Trainer, history: list[dict[str, float]]) -> tuple[str | None, dict[str, float]]:
    """Return the checkpoint that validation chose and its epoch's metrics; without one, None and the last epoch's."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            monitor, best = callback.monitor, max if callback.mode == "max" else min
            rows = [row for row in history if monitor in row]
            return callback.best_model_path, best(rows, key=lambda row: row[monitor])
    return None, history[-1]


def _show_images(logger: TensorBoardLogger, data: DataModule) -> None:
    """Show TensorBoard the first training images."""
    first = data.train[torch.arange(min(32, len(data.train)))]
    names = [data.class_names[label] for label in first.labels]
    logger.experiment.add_figure("train/images", draw_gallery(first.images[:, 0].numpy(), names))


def _show_result(
    logger: TensorBoardLogger, data: DataModule, model: Classifier, metrics: dict[str, float], shown: dict[str, Any]
) -> None:
    """Show TensorBoard the confusion matrix of the test set, and the settings beside the final metrics."""
    counts = model.confusion.compute().cpu().numpy().astype(np.int64)
    logger.experiment.add_figure("test/confusion", draw_confusion(counts, data.class_names))
    plain = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in shown.items()}
    logger.log_hyperparams(plain, metrics)
    logger.finalize("success")


def _device(trainer: lightning.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def shown_settings(settings: dict[str, Any], choices: dict[str, str], overrides: list[str]) -> dict[str, Any]:
    """Return what the HPARAMS tab shows: the groups' choices, what is most often swept, and what was overridden."""
    flat = {**flatten(settings), **choices}
    often = ["seed", "optim.lr", "data.batch_size", "trainer.max_epochs"]
    asked = [setting_of(override) for override in overrides]
    return {key: flat[key] for key in [*choices, *often, *asked] if key in flat}
