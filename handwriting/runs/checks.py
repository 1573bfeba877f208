"""Checks before a job begins: settings that are unused, contradict each other, or have no effect."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import yaml
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from handwriting.runs.config import CONF, mode_of
from handwriting.runs.constraints import SETTINGS
from handwriting.runs.record import ADDED, has_influence, setting_of
from handwriting.runs.source import texts_of
from handwriting.utils.errors import UserError, did_you_mean

METRICS = ("val/acc", "val/loss", "train/acc", "train/loss")  # logged each epoch; a callback can monitor them
COUNTERS = ("epoch", "step", "lr")  # a callback can monitor these too, with either mode
OURS = ("lightning.", "handwriting.")
OPEN = ("callbacks", "search", "hydra")  # sections that may have any key
NOT_NODES = ("average", "experiment", "debug")  # groups that write to other nodes of the config
# Used only for neural networks. trainer.max_epochs is allowed in a sweep over both kinds of model.
FOR_NETWORKS = ("optim", "scheduler", "loss", "average", "callbacks", "compile", "on_nan", "tta", "trainer")
FOR_NETWORKS += ("augment.clean_epochs", *ADDED)
RUN_CALLBACKS = ("checkpoint", "last")
# The other schedulers, and these callbacks, may depend on the number of epochs: they need all of them.
ANY_LENGTH = ("StepLR", "MultiStepLR", "ExponentialLR", "ReduceLROnPlateau")
BY_LENGTH = ("EpochAveraging", "Snapshots", "StochasticWeightAveraging")
LOGGERS = {"MLflow": "mlflow", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}  # their packages, and our extras
# Settings of the trainer that count single steps or change them, and their possible values with compile=graph.
WITH_GRAPHS: dict[str, tuple[object, ...]] = {
    "devices": (1,),
    "num_nodes": (1,),
    "precision": ("32-true", "32", 32, "bf16-mixed", "bf16-true", "bf16", "64-true", "64", 64),
    "limit_train_batches": (1.0, None),  # 1 would be one list of batches
    "accumulate_grad_batches": (1,),
    "gradient_clip_val": (None,),
    "val_check_interval": (None, 1.0),
    "max_steps": (-1,),
    "overfit_batches": (0, 0.0),
    "fast_dev_run": (False,),
    "detect_anomaly": (False, None),
}
# What a classical baseline does anyway.
DEFAULTS = {"average=none", "stop=none", "scheduler=none", "trainer=default", "compile=false", "tta.views=1"}
DEFAULTS |= {"trainer.devices=1", "trainer.accelerator=cpu", "trainer.accelerator=auto", "trainer.precision=32-true"}


def check_config(config: DictConfig, hydra: DictConfig | None = None) -> None:
    """Raise UserError for an unused setting, an unknown monitored metric, or the wrong mode for one.

    ``config`` is the composed config, its interpolations unresolved; ``hydra`` is Hydra's own node.
    """
    for group in ("experiment", "debug"):
        if isinstance(config.get(group), DictConfig):
            raise UserError(
                f"The file of this {group} sets {group}.{next(iter(config[group]))}: begin it with the line "
                "# @package _global_, so that its settings are those of the whole config."
            )
    _check_all_are_used(config, hydra)
    _check_race(hydra)
    metric, mode = config.monitor.metric, config.monitor.mode
    if metric not in METRICS:
        why = (
            " is of the test set, which is not used to choose" if str(metric).startswith("test") else " does not exist"
        )
        raise UserError(
            f"monitor.metric={metric}{why}.{did_you_mean(str(metric), METRICS)} Known: {', '.join(METRICS)}."
        )
    _check_mode("monitor.mode", mode, "monitor.metric", metric)
    own = any(not _target(callback).startswith(OURS) for callback in config.callbacks.values() if callback)
    for name, callback in config.callbacks.items():
        if callback is not None and not isinstance(callback, DictConfig):
            raise UserError(
                f"callbacks.{name}={callback} is not a callback: it needs a _target_, the name of its class."
            )
        if callback and callback.get("monitor"):
            _check_callback(f"callbacks.{name}", callback, known=not own)
    if config.get("stop"):
        _check_callback("stop", config.stop, known=not own)
        _check_stop(config)
    if "total_steps" in (config.get("scheduler") or {}):
        raise UserError("scheduler.total_steps is the length of the training, which sets it: leave it out.")
    if "ReduceLROnPlateau" in _target(config.get("scheduler")):
        _check_mode("scheduler.mode", config.scheduler.get("mode", "min"), "the monitored metric", "val/loss")
    _check_logger(config.get("logger"))
    SETTINGS["init_from"].check("init_from", config.init_from)


def check_settings(config: DictConfig) -> None:
    """Raise UserError for a setting out of its range; those of components are checked when these are built."""
    for setting, constraint in SETTINGS.items():
        constraint.check(setting, OmegaConf.select(config, setting))


def check_trainer(trainer: DictConfig, fused: bool | None, graphs: bool = False) -> None:
    """Raise UserError for settings of the trainer that Lightning does not report, or only during training.

    ``graphs`` says that steps are CUDA graphs, many of them in each of Lightning's batches.
    """
    for setting, possible in WITH_GRAPHS.items() if graphs else ():
        value = trainer.get(setting, possible[0])
        if not any(value == one and type(value) is type(one) for one in possible):
            raise UserError(
                f"compile=graph cannot train with trainer.{setting}={trainer[setting]}: leave it out, or choose "
                "compile=false."
            )
    if trainer.gradient_clip_val and fused and "mixed" in str(trainer.precision):
        raise UserError(
            f"trainer.gradient_clip_val with trainer.precision={trainer.precision} needs optim.fused=false: "
            "Lightning cannot clip gradients for a fused optimizer there."
        )


def check_plateau(scheduler: DictConfig) -> None:
    """Raise UserError if the scheduler of a run without a validation set monitors val/loss."""
    if "ReduceLROnPlateau" in _target(scheduler):
        raise UserError(
            "scheduler=plateau monitors val/loss, but data.val_fraction=0 leaves no validation set: "
            "choose another scheduler or a larger data.val_fraction."
        )


def need_for_all_epochs(config: Mapping[str, Any]) -> str:
    """Return what in a config is wrong in a training of fewer epochs than trainer.max_epochs; '' if there is nothing.

    Callbacks that this package does not know are not among it.
    """
    scheduler = _target(config["scheduler"]).rpartition(".")[2]
    if scheduler and scheduler not in ANY_LENGTH:
        return f"{scheduler}, whose learning rate depends on trainer.max_epochs"
    if config["augment"] and config["augment"].get("clean_epochs"):
        return "augment.clean_epochs, which are its final epochs"
    callbacks = {name: _target(callback).rpartition(".")[2] for name, callback in config["callbacks"].items()}
    found = [name for name, kind in callbacks.items() if kind in BY_LENGTH]
    return f"callbacks.{found[0]}, which depends on trainer.max_epochs" if found else ""


def without_validation(name: str, callback: DictConfig) -> DictConfig:
    """Return a callback's config for a run without a validation set: its checkpoint is that of the last epoch."""
    if not str(callback.get("monitor")).startswith("val/"):
        return callback
    if not callback["_target_"].endswith("ModelCheckpoint"):
        raise UserError(
            f"{callback['_target_'].split('.')[-1]} monitors {callback.monitor}, but data.val_fraction=0 leaves no "
            f"validation set: {'choose stop=none' if name == 'stop' else 'leave the callback out'}, or choose a larger "
            "data.val_fraction."
        )
    return OmegaConf.merge(callback, {"monitor": None})  # type: ignore[return-value]


def check_baseline(config: DictConfig, overrides: Iterable[str]) -> None:
    """Raise UserError for an option that a classical baseline ignores.

    ``overrides`` may have none of the settings that only networks use. An experiment over both kinds of model may have
    them in its file, except test-time augmentation, weight averaging, other callbacks, and several devices.
    """
    ignored = [override for override in overrides if _is_for_networks(override)]
    if config.tta.views != 1:
        ignored.append(f"tta.views={config.tta.views}")
    added = {name: config[name] for name, unused in ADDED.items() if config[name] != unused}
    ignored += [name if isinstance(value, DictConfig) else f"{name}={value}" for name, value in added.items()]
    if config.trainer.devices != 1:
        ignored.append(f"trainer.devices={config.trainer.devices}")
    ignored += [f"callbacks.{name}" for name, one in config.callbacks.items() if one and name not in RUN_CALLBACKS]
    if ignored:
        raise UserError(
            f"{ignored[0]} has no effect on a classical baseline, which scikit-learn fits in one call on one CPU, "
            "without gradient steps: leave it out, or choose a model that is a neural network."
        )


def _is_for_networks(override: str) -> bool:
    setting = setting_of(override).split("@")[0]
    if setting == "trainer.max_epochs" or not has_influence(setting) or override.lstrip("+") in DEFAULTS:
        return False
    return any(setting == name or setting.startswith(f"{name}.") for name in FOR_NETWORKS)


def _check_race(hydra: DictConfig | None) -> None:
    """Raise UserError for a setting of a race where there is none."""
    if hydra is None or "Race" in _target(hydra.get("sweeper")):
        return
    for override in (hydra.get("overrides") or {}).get("task") or ():
        if setting_of(override).startswith("race."):
            raise UserError(f"{override} has no effect without a race: add -m hydra/sweeper=race, or leave it out.")


def _check_stop(config: DictConfig) -> None:
    """Raise UserError if early stopping would cut off what comes at the end of a training."""
    if needs := need_for_all_epochs(config):  # type: ignore[arg-type]
        raise UserError(
            f"stop may end a training before its last epoch, and this one has {needs}: choose stop=none, or leave the "
            "other out."
        )


def _check_logger(logger: DictConfig | None) -> None:
    """Raise UserError if the package of a logger is not installed."""
    package = LOGGERS.get(_target(logger).rpartition(".")[2])
    if package is None:
        return
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name, such as W&B's files, is no package
        raise UserError(f"{package} is not installed: pip install 'handwriting[{package}]', or choose another logger.")


def _check_callback(place: str, callback: DictConfig, known: bool) -> None:
    """Raise UserError for a callback with a metric that is not logged, or with the wrong mode."""
    metric = str(callback.monitor)
    if metric in COUNTERS:
        return
    if metric not in METRICS and (known or metric.startswith("test/")):
        raise UserError(
            f"{place}.monitor={metric} is not a metric of training or validation."
            f"{did_you_mean(metric, METRICS)} Known: {', '.join(METRICS)}."
        )
    has_mode = _target(callback).rpartition(".")[2] in ("ModelCheckpoint", "EarlyStopping")
    if "mode" in callback or has_mode:  # default: min
        _check_mode(f"{place}.mode", callback.get("mode", "min"), f"{place}.monitor", metric)


def _check_mode(setting: str, mode: object, watched: str, metric: str) -> None:
    better = mode_of(metric)
    if better and mode != better:
        wanted = "lower" if better == "min" else "higher"
        raise UserError(
            f"{setting}={mode} contradicts {watched}={metric}, of which {wanted} is better: set it to {better}."
        )


def _target(config: Any) -> str:
    return str(config.get("_target_", "")) if isinstance(config, Mapping | DictConfig) else ""


def _check_all_are_used(config: DictConfig, hydra: DictConfig | None) -> None:
    """Raise UserError for a setting that is not in the default config and not used by an interpolation."""
    known = _known_tree()
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    found = {(key,) for key in plain.keys() - known.keys()}
    for key, inner in known.items():
        if isinstance(inner, dict) and isinstance(plain.get(key), dict):
            found |= {(key, name) for name in plain[key].keys() - inner.keys()}
    if hydra is not None:
        its_own = {field.name for field in fields(HydraConf)} | {"env"}  # a group that is not in HydraConf
        found |= {("hydra", str(key)) for key in hydra.keys() - its_own}
    if not found:
        return
    nodes = [plain, OmegaConf.to_container(hydra, resolve=False) if hydra is not None else {}]
    referred = {word for text in texts_of(nodes) if "${" in text for word in re.findall(r"\w+", text)}
    for path in sorted(found):
        if path[-1] not in referred:
            beside = known if len(path) == 1 else [f"{path[0]}.{name}" for name in known[path[0]] or ()]
            name = ".".join(path)
            raise UserError(f"The setting {name!r} is not used by anything: leave it out.{did_you_mean(name, beside)}")


@lru_cache
def _known_tree() -> dict[str, Any]:
    """Return the keys of the default config, with the inner keys of sections that the package uses by name."""
    tree = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    nodes = [group.name for group in CONF.iterdir() if group.is_dir() and group.name not in NOT_NODES]
    return {key: None if key in OPEN else value for key, value in tree.items() if key != "defaults"} | dict.fromkeys(
        nodes
    )
