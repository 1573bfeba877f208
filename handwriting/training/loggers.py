"""Loggers beside TensorBoard and metrics.csv: MLflow, Weights & Biases, or one from a user's config file."""

import contextlib
import importlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from omegaconf import DictConfig

from handwriting.runs.instantiate import build

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
SQLITE = "sqlite:///"
AT_ONCE = 1000  # metrics that MLflow takes in one call


def build_logger(config: DictConfig | None) -> Logger | None:
    """Return the logger of a config, or None for logger=tensorboard, which every run has. It sends no telemetry."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    return build("logger", config)


@contextlib.contextmanager
def logging_to(logger: Logger | None, settings: Mapping[str, Any]) -> Iterator[None]:
    """Log the settings of a run before its training, and end it afterwards: as failed, if the training raises."""
    if logger is None:
        yield
        return
    logger.log_hyperparams(dict(settings))
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        logger.finalize(status)
        if isinstance(logger, WandbLogger):  # otherwise the next run of a sweep would be logged to this one
            logger.experiment.finish(exit_code=0 if status == "success" else 1)


class MLflow(MLFlowLogger):
    """Lightning's MLFlowLogger for many runs in one SQLite file: locked while it is created, and written once an epoch.

    To write the metrics of one step takes about 40 ms, more than many steps of training.
    """

    def __init__(self, tracking_uri: str, **settings: Any):
        file = tracking_uri.removeprefix(SQLITE)
        self._lock: Any = contextlib.nullcontext()
        if file != tracking_uri:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{file}.lock")
        self._waiting: list[Any] = []  # metrics that are not written yet
        self._metric = importlib.import_module("mlflow.entities").Metric  # this import sets the level of its log
        for name in ("mlflow", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they report each table and experiment that they create
        with self._lock:
            super().__init__(tracking_uri=tracking_uri, **settings)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return MLflow's client; the first call creates the run."""
        with self._lock:
            return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep metrics until the next save."""
        now = int(1000 * time.time())
        self._waiting += [self._metric(name, float(value), now, step or 0) for name, value in metrics.items()]

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged; this is called at each checkpoint and after each validation and test."""
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            self.experiment.log_batch(self.run_id, metrics=some)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Write what was logged, and end the run."""
        self.save()
        super().finalize(status)
