"""The fit of a classical baseline into its run's folder."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from handwriting.data import DataModule
from handwriting.models.baselines import Baseline
from handwriting.training.tensorboard import RunLogger, final_metrics, show_augmentation, show_images, show_result
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_text
from handwriting.utils.hardware import with_threads
from handwriting.utils.metrics import confusion, score


@dataclass
class BaselineJob:
    """The objects of a run of a classical baseline, ready to be fitted; nothing is written yet."""

    data: DataModule
    model: Baseline
    folder: Path
    logger: Logger | None = None  # beside TensorBoard
    last: None = None  # it is fitted in one call: there is nothing to resume
    step: int = 0
    note: str = ""

    def __post_init__(self):
        if self.data.augmentation.steps:
            raise UserError("A model of scikit-learn sees each image once: choose augment=none, shift7 or shift11.")


def fit_baseline(job: BaselineJob, shown: dict[str, Any]) -> dict[str, Any]:
    """Fit, write the files of the run's folder, and return the fields of result.json."""
    data, model = job.data, job.model
    logger = RunLogger(job.folder)
    show_images(logger, data)
    show_augmentation(logger, data, job.folder)
    begun = time.perf_counter()
    model.fit(data.seen_in_training)
    seconds = time.perf_counter() - begun
    metrics: dict[str, float] = {}
    for name, part in {"train": data.train, "val": data.val, **data.test_parts}.items():
        if len(part):
            probabilities = model.predict_proba(part.images)
            scores = score(probabilities, part.labels)
            metrics |= {f"{name}/{key}": scores[key] for key in ("loss", "acc", "top5") if key in scores}
            if name == "test":
                counts = confusion(probabilities.argmax(1), part.labels, model.num_classes)
                model.confused, model.tested = torch.from_numpy(counts), [probabilities]
    row = {"epoch": 0, "step": 0, **{key: metrics[key] for key in metrics if key.split("/")[0] in ("train", "val")}}
    write_text(job.folder / "metrics.csv", ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    logger.log_metrics({key: float(value) for key, value in metrics.items()}, 0)
    show_result(logger, data, model, job.folder, step=0)
    logger.log_result(shown, metrics, step=0)
    if job.logger:
        job.logger.log_metrics(metrics | final_metrics(metrics), step=0)
    return {
        "metrics": metrics,
        "chosen_epoch": 1,
        "epochs": 1,
        "seconds": round(seconds, 3),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "parameters": model.numbers(),
        "device": with_threads("cpu"),
    }
