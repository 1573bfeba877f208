"""One training job: build its objects from the config, fit, test the chosen weights, return the result."""

import logging
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from handwriting.data import DataModule, typical_images
from handwriting.data.checks import warn_once
from handwriting.data.dataset import characters_of
from handwriting.inference.preprocess import measure_foreground
from handwriting.models.baselines import Baseline
from handwriting.models.calibration import fit_platt, fit_temperature
from handwriting.models.sequence_model import SequenceModel
from handwriting.runs.checks import check_baseline, check_plateau, check_settings, check_trainer, without_validation
from handwriting.runs.config import augmentation_of_views
from handwriting.runs.instantiate import build, build_model
from handwriting.runs.record import flatten, setting_of
from handwriting.training.callbacks import RunBar
from handwriting.training.check_network import check_network
from handwriting.training.finetuning import freeze, start_from
from handwriting.training.fit_baseline import BaselineJob, fit_baseline
from handwriting.training.graphs import GraphClassifier, check_callbacks
from handwriting.training.loggers import build_logger, logging_to
from handwriting.training.module import Classifier
from handwriting.training.recognizer import Recognizer
from handwriting.training.resume import last_checkpoint, restore_rows, rewrite_facts
from handwriting.training.tensorboard import RunLogger, final_metrics, show_augmentation, show_images, show_result
from handwriting.utils.errors import UserError, naming_the_line
from handwriting.utils.hardware import processor, with_threads
from handwriting.utils.metrics import SMALLEST, Tally, fraction_right

REMARKS = (  # of Lightning, as regular expressions
    ".*does not have many workers.*",
    ".*`srun` command is available on your system.*",
    ".*(Experiment logs|Checkpoint) directory .* exists and is not empty.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*when logging on epoch level in distributed setting.*",  # summed up by then
    ".*Total length of `list` across ranks is zero.*",  # data.val_fraction=0
    ".*number of training batches.*smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # frozen layers
)


@dataclass
class Job:
    """The objects of a run, ready to train; nothing is written yet."""

    data: DataModule
    model: Classifier | Recognizer
    trainer: lightning.Trainer
    tensorboard: RunLogger
    logger: Logger | None = None  # beside TensorBoard
    last: Path | None = None  # the checkpoint to resume from
    step: int = 0  # and its number of steps
    note: str = ""  # on what it starts from
    views: Any = None  # Views or SequenceViews of each test image, for test-time augmentation


def build_job(
    config: DictConfig,
    settings: dict[str, Any],
    folder: Path,
    title: str,
    resume: bool = False,
    overrides: Sequence[str] = (),
) -> Job | BaselineJob:
    """Load the data and build the objects of ``config``. Raises UserError if that fails.

    ``settings`` is the config as plain data, for the checkpoint; ``title`` is what the bar says. With ``resume`` the
    job resumes from the folder's last checkpoint, where there is one. ``overrides`` are those of the command line.
    """
    check_settings(config)
    check_trainer(config.trainer, fused=config.optim.get("fused"), graphs=config.compile == "graph")
    _quiet_lightning()
    lightning.seed_everything(config.seed, verbose=False)
    data: DataModule = build("data", config.data, augmentation=build("augment", config.augment))
    net = build_model(config.model, len(data.class_names), data.image_size, data.channels)
    _check_kind(config, net, data, overrides)
    if isinstance(net, Baseline):
        check_baseline(config, overrides)
        return BaselineJob(data, net, folder, build_logger(config.get("logger")))
    loss = build("loss", config.loss)
    check_network(net, str(config.model.get("_target_")), data, loss)
    of_views = build("augment", augmentation_of_views(settings))
    views = partial(of_views.scene_views if data.is_sequence else of_views.views, number=config.tta.views)
    with naming_the_line("augment"):
        list(views(data.test.images[:1]))  # fails if the augmentation makes fewer views
    model = _build_model(config, settings, data, net, loss)
    note = start_from(model, Path(config.init_from)) if config.init_from else ""
    last = last_checkpoint(folder) if resume else None
    begun = (last[0], last[1]["global_step"]) if last else (None, 0)
    if not len(data.val):
        check_plateau(config.scheduler)
    tensorboard = RunLogger(folder, begun[1] if last else None)
    callbacks = _callbacks(config, bool(len(data.val)))
    logger = build_logger(config.get("logger"))
    trainer = _build_trainer(config, folder, title, callbacks, [tensorboard, *filter(None, [logger])])
    return Job(data, model, trainer, tensorboard, logger, *begun, note, views if config.tta.views > 1 else None)


def _build_model(
    config: DictConfig, settings: dict[str, Any], data: DataModule, net: torch.nn.Module, loss: torch.nn.Module
) -> Classifier | Recognizer:
    """Return the network with its optimizer, scheduler and loss, all checked."""
    mean, std = data.mean_and_std()
    optimizer, scheduler = build("optim", config.optim), build("scheduler", config.scheduler)
    parts = tuple(data.test_parts)
    _check_loss(loss, len(data.class_names))
    facts, classes, stop_on_nan = _facts(data, settings), len(data.class_names), config.on_nan == "stop"
    data.in_lists = config.compile == "graph"
    common = (optimizer, scheduler, classes, mean, std, facts, loss)
    if isinstance(net, SequenceModel):
        model: Classifier | Recognizer = Recognizer(net, *common, stop_on_nan=stop_on_nan, max_length=data.max_length)
    else:
        kind = GraphClassifier if config.compile == "graph" else Classifier
        model = kind(net, *common, test_parts=parts, stop_on_nan=stop_on_nan)
    if config.freeze:
        model.frozen = freeze(net, config.freeze)
        model.train()
    if _is_lbfgs(optimizer):
        if config.compile == "graph":
            raise UserError("compile=graph cannot repeat a step, as LBFGS does: choose compile=false.")
        net.to(memory_format=torch.contiguous_format)  # LBFGS needs parameters that are one vector without copies
    model.make_optimization(steps=100)  # to find invalid settings before anything is written
    if config.compile is True:
        net.compile()
    return model


def _is_lbfgs(optimizer: Any) -> bool:
    kind = getattr(optimizer, "func", None)
    return isinstance(kind, type) and issubclass(kind, torch.optim.LBFGS)


def _build_trainer(
    config: DictConfig, folder: Path, title: str, callbacks: list[lightning.Callback], loggers: list[Logger]
) -> lightning.Trainer:
    """Return the Trainer with callbacks, progress bar, metrics.csv and other loggers."""
    if config.compile == "graph":
        check_callbacks(callbacks)
    bar = [RunBar(title, Console(stderr=True))] if config.trainer.enable_progress_bar else []
    trainer: lightning.Trainer = build(
        "trainer",
        OmegaConf.merge(config.trainer, {"enable_progress_bar": False}),  # RunBar is the bar
        logger=[CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1000), *loggers],
        callbacks=[*callbacks, *bar],
        default_root_dir=str(folder),
        use_distributed_sampler=False,  # the data module splits batches between processes
        plugins=[LightningEnvironment()],  # also on a cluster: the sweep's launcher requeues jobs itself
    )
    if trainer.strategy.root_device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions use it by default
    return trainer


def _facts(data: DataModule, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint, so that the model can be used with its file alone."""
    facts = {
        "settings": settings,
        "class_names": list(data.class_names),
        "glyphs": list(data.glyphs),
        "image_size": list(data.image_size),
        "channels": data.channels,
        "photographs": data.photographs,
    }
    if data.photographs:
        return facts
    examples = typical_images(data.train, len(data.class_names))
    return facts | {"ink": measure_foreground(data.train.images), "examples": examples}


def _quiet_lightning() -> None:
    """Silence messages of Lightning that come with every job and need no action: they would flood a sweep's output."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for remark in REMARKS:
        warnings.filterwarnings("ignore", remark)


def train_job(job: Job | BaselineJob, settings: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """Train, write the files of the run's folder, and return the fields of result.json.

    ``shown`` goes to TensorBoard's HPARAMS tab; another logger has all ``settings`` too. ``chance`` is the test
    accuracy, a fraction, of always predicting the most common class of the test set.
    """
    with logging_to(job.logger, {**flatten(settings), **shown}):
        outcome = fit_baseline(job, shown) if isinstance(job, BaselineJob) else _train_network(job, shown)
    labels = job.data.test.labels
    chance = labels.unique(dim=0, return_counts=True)[1].max().item() / len(labels)
    return outcome | {"classes": len(job.data.class_names), "chance": chance, "processor": processor()}


def _train_network(job: Job, shown: dict[str, Any]) -> dict[str, Any]:
    folder = Path(job.trainer.default_root_dir)
    if not job.trainer.is_global_zero:  # the first of several processes prints and writes
        return fit_and_test(job.data, job.model, job.trainer, job.last)
    if job.last:
        restore_rows(next(logger for logger in job.trainer.loggers if isinstance(logger, CSVLogger)), job.step)
    else:
        show_images(job.tensorboard, job.data)
        show_augmentation(job.tensorboard, job.data, folder)
    outcome = fit_and_test(job.data, job.model, job.trainer, job.last)
    outcome |= _calibrate(job)
    metrics, step = outcome["metrics"], job.trainer.global_step
    if job.views:
        with_views = _predict_views(job)
        job.tensorboard.log_metrics(with_views, step)
        metrics |= with_views
    show_result(job.tensorboard, job.data, job.model, folder, step)
    job.tensorboard.log_result(shown, metrics, step)
    if job.logger:
        job.logger.log_metrics(final_metrics(metrics), step)
    return outcome


def _calibrate(job: Job) -> dict[str, Any]:
    """Calibrate the tested model on the validation set, also in its checkpoint; return the numbers for result.json.

    Without a validation set nothing is fitted, and the temperature is 1.
    """
    model, val = job.model, job.data.val
    if isinstance(model, Recognizer):
        facts: dict[str, Any] = {"platt": None}
        if len(val):
            found, true = model.transcribe(val.images), characters_of(val.labels)
            right = [one.labels == other for one, other in zip(found, true, strict=True)]
            model.platt = fit_platt([one.probability for one in found], right)
            facts = {"platt": list(model.platt) if model.platt else None}
    else:
        if len(val):
            model.temperature = fit_temperature(model.log_proba(val.images), val.labels)
        facts = {"temperature": model.temperature}
    if (best := _best_checkpoint(job.trainer)) and len(val):
        rewrite_facts(Path(best), model.facts | facts)
    return facts


def _predict_views(job: Job) -> dict[str, float]:
    """Return the accuracy of the test set with test-time augmentation, and the loss where there are probabilities."""
    if isinstance(job.model, Recognizer):
        predicted = [one.labels for one in job.model.transcribe(job.data.test.images, job.views)]
        return {"test_tta/acc": fraction_right(predicted, characters_of(job.data.test.labels))}
    logits, labels = job.model.log_proba(job.data.test.images, job.views), job.data.test.labels
    tally = Tally(job.model.tally["test"].top)
    logits = logits.clamp_min(math.log(SMALLEST))
    loss = torch.nn.functional.nll_loss(logits, labels)
    tally.add(len(labels), loss, tally.count_correct(logits, labels))
    return {f"test_tta/{name}": value for name, value in tally.means().items()}


def fit_and_test(
    data: DataModule, model: Classifier | Recognizer, trainer: lightning.Trainer, last: Path | None = None
) -> dict[str, Any]:
    """Fit, from the checkpoint ``last`` if it is given; then test the weights with the best validation once.

    Return metrics, epochs, seconds and sizes.
    """
    start = time.perf_counter()
    try:
        trainer.fit(model, data, ckpt_path=last, weights_only=True if last else None)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    seconds = model.seconds + time.perf_counter() - start
    chosen = model.history[-1]
    if best := _best_checkpoint(trainer):
        saved = torch.load(best, map_location="cpu", weights_only=True)
        chosen = next(row for row in model.history if row["epoch"] == saved["epoch"])
        # If the trainer loaded the checkpoint, the averaging callback would undo the average.
        model.load_state_dict(saved["state_dict"])
    trainer.test(model, data, verbose=False)
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


def _check_kind(config: DictConfig, net: torch.nn.Module, data: DataModule, overrides: Sequence[str]) -> None:
    """Raise UserError for a network of single characters on images with several, and the other way round.

    Also for settings that a network for several characters does not use.
    """
    model, name = config.model.get("_target_", "").split(".")[-1], data.name
    if data.is_sequence and not isinstance(net, SequenceModel):
        raise UserError(
            f"{model} predicts one character for each image, and the images of {name} have several: choose "
            "model=digit_heads, crnn, detector, ssdlite or detect_then_read."
        )
    if not isinstance(net, SequenceModel):
        return
    if not data.is_sequence:
        raise UserError(
            f"{model} recognises several characters in an image, and the images of {name} have one each: choose "
            "data=street or street_demo, or a model of single characters, such as model=net."
        )
    if net.needs_boxes and data.train.boxes is None:
        raise UserError(
            f"{model} learns from boxes of the characters, and {name} has none: choose model=digit_heads or crnn."
        )
    if config.compile == "graph":
        raise UserError("compile=graph trains networks of single characters only: choose compile=false.")
    used = [one for one in overrides if not net.uses_loss and setting_of(one).split(".")[0] == "loss"]
    if used:
        raise UserError(f"{used[0]} has no effect on {model}, which has a loss of its own: leave it out.")
    longest = getattr(net, "max_length", None)
    for split, part in (("training", data.train), ("validation", data.val), ("test", data.test)):
        too_long = sum(len(one) > longest for one in characters_of(part.labels)) if longest else 0
        if too_long:
            warn_once(
                f"{too_long:,} {split} image{'s have' if too_long > 1 else ' has'} more than {longest} characters, "
                f"which {model} cannot predict (model.max_length={data.max_length}: it can)."
            )


def _check_loss(loss: torch.nn.Module, num_classes: int) -> None:
    """Try the loss on one image: torch checks most of its settings only then."""
    try:
        with naming_the_line("loss"):
            loss(torch.zeros(1, num_classes), torch.zeros(1, dtype=torch.int64))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"loss: {' '.join(str(error).split()).rstrip('.')}.") from error


def _best_checkpoint(trainer: lightning.Trainer) -> str | None:
    """Return the path of the best checkpoint by a metric; None if there is none, as without validation."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            return callback.best_model_path
    return None


def _callbacks(config: DictConfig, validates: bool) -> list[lightning.Callback]:
    named = {f"callbacks.{name}": callback for name, callback in config.callbacks.items()} | {
        "stop": config.get("stop")
    }
    return [
        build(name, callback if validates else without_validation(name, callback))
        for name, callback in named.items()
        if callback
    ]


def _device(trainer: lightning.Trainer) -> str:
    device = trainer.strategy.root_device
    several = f"{trainer.world_size} × " if trainer.world_size > 1 else ""
    if device.type == "cuda":
        return several + torch.cuda.get_device_name(device)
    return several + with_threads(device.type)
