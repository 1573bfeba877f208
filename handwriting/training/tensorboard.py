"""Outputs of a run: TensorBoard events, and tables and figures in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from handwriting.data import DataModule, LabelledImages
from handwriting.data.dataset import Sequences, boxes_of, pictures, texts
from handwriting.inference import classification, transcription
from handwriting.inference.transcription import draw_transcripts
from handwriting.plots.images import draw_confusion, draw_gallery, draw_variants
from handwriting.plots.style import as_png, shown_names
from handwriting.runs.record import HELD_OUT, PREDICTIONS, flatten, setting_of
from handwriting.training.recognizer import Recognizer
from handwriting.utils.files import as_csv, write_bytes, write_text
from handwriting.utils.metrics import NONE, per_character, per_class

FINAL = ("test/acc", "test_tta/acc", "val/acc")  # of the chosen epoch; TensorBoard sorts tags, and final/ comes first


class RunLogger(TensorBoardLogger):
    """The TensorBoard events of one run, in its folder.

    With ``resumed_step``, the step of the checkpoint that training resumes from, TensorBoard drops later points.
    """

    def __init__(self, folder: Path, resumed_step: int | None = None):
        purge: dict[str, Any] = {} if resumed_step is None else {"purge_step": resumed_step + 1}
        super().__init__(folder, name="", version="", default_hp_metric=False, **purge)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at a step, without the epoch that Lightning adds to each: its chart is a staircase."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_result(self, settings: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Log the final accuracies once, as final/…, and the settings for the HPARAMS tab.

        The tab shows the last point of each tag as a metric: of val/acc that is the last epoch, of final/val/acc the
        chosen one. Lightning's log_hyperparams would log every metric again, at step 0, and list the settings in an
        Experiment, of which TensorBoard uses the first one that it finds. Without one it gathers the settings of all
        runs, and shows those first in which the runs differ.
        """
        self.log_metrics(final_metrics(metrics), step)
        plain = {name: value if _is_number(value) else str(value) for name, value in settings.items()}
        _, start, end = hparams(plain, {})
        for summary in (start, end):
            self.experiment._get_file_writer().add_summary(summary)
        self.save()


def final_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the accuracies of a finished run as final/…: val/acc is that of the chosen epoch."""
    return {f"final/{name}": metrics[name] for name in FINAL if name in metrics}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Tested(Protocol):
    """A model of single characters after its test."""

    confused: torch.Tensor  # (true class, predicted class)
    tested: list[torch.Tensor]  # one tensor (N, classes): logits, or probabilities of a classical baseline

    def calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (N, classes) of what the test has computed."""
        ...

    def predict_proba(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (N, classes) of uint8 images (N, C, H, W)."""
        ...


def show_images(logger: RunLogger, data: DataModule) -> None:
    """Show TensorBoard some of the training images, with the boxes of their characters."""
    some, names = _spread(data.train, 32), shown_names(data.class_names, data.glyphs)
    figure = draw_gallery(pictures(some.images), texts(some.labels, names), boxes=boxes_of(some.labels, some.boxes))
    logger.experiment.add_figure("train/images", figure)


def show_augmentation(logger: RunLogger, data: DataModule, folder: Path) -> None:
    """Draw training images above their augmented versions, with boxes: augment.png, also in TensorBoard."""
    height, width = data.image_size
    augmentation, some = data.augmentation, _spread(data.train, 6 if width > 1.5 * height else 16)
    if not augmentation.steps and len(augmentation.variants) == 1:
        return
    fixed = augmentation.expand(some).images.split(len(some))
    rows = {name: images for name, images in zip(augmentation.variants, fixed, strict=True) if name != "original"}
    boxes = {"original": boxes_of(some.labels, some.boxes)}
    if augmentation.steps:
        generator = torch.Generator().manual_seed(augmentation.seed)
        for name in (f"random {number}" for number in range(1, 5)):
            batch = some.batch(torch.arange(len(some)))
            rows[name], targets = augmentation.vary(*batch, len(data.class_names), generator)
            if isinstance(targets, Sequences):
                boxes[name] = boxes_of(*targets)
    figure = draw_variants(pictures(some.images), {name: pictures(images) for name, images in rows.items()}, boxes)
    write_bytes(folder / "augment.png", as_png(figure))
    logger.experiment.add_figure("train/augmented", figure)


def show_result(logger: RunLogger, data: DataModule, model: Tested | Recognizer, folder: Path, step: int) -> None:
    """Write per_class.csv, predictions.csv and held_out.csv; show TensorBoard the confusion matrix of the test set.

    Of several characters there are also some test images with their boxes and predictions.
    """
    counts, names = model.confused.numpy().astype(np.int64), shown_names(data.class_names, data.glyphs)
    table = (per_character if data.is_sequence else per_class)(counts, data.class_names, data.glyphs)
    write_text(folder / "per_class.csv", table.to_csv(index=False))
    write_text(folder / PREDICTIONS, as_csv(_predictions(data, model)))
    if data.split != "holdout":
        write_text(folder / HELD_OUT, as_csv(_held_out(data, model)))
    figure = draw_confusion(counts, [*names, NONE] if data.is_sequence else names)
    logger.experiment.add_figure("test/confusion", figure, step)
    if isinstance(model, Recognizer):
        some = _spread(data.test, 32)
        figure = draw_transcripts(some, model.transcribe(some.images), names, "Sample of the test set")
        logger.experiment.add_figure("test/predictions", figure, step)


def _predictions(data: DataModule, model: Tested | Recognizer) -> pd.DataFrame:
    """Return a row for each image of the test, as it was predicted there, with calibrated probabilities."""
    if isinstance(model, Recognizer):
        answer = transcription.Answer(model.calibrate(model.tested), [])
        return transcription.predictions(answer, data.test[torch.arange(len(model.tested))], data.class_names)
    (outputs,) = model.tested
    tested = data.test[torch.arange(len(outputs))]  # all, if trainer.limit_test_batches is not set
    return classification.predictions(model.calibrate(outputs), tested, data.class_names, outputs.argmax(1))


def _held_out(data: DataModule, model: Tested | Recognizer) -> pd.DataFrame:
    """Return a row for each held-out image: its index in the training set, label, prediction (read), probabilities.

    Of several characters the row has both as text, and the probability of the prediction.
    """
    table = pd.DataFrame({"image": data.held_out.numpy()})
    if isinstance(model, Recognizer):
        answer = transcription.Answer(model.transcribe(data.val.images), [])
        rows = transcription.predictions(answer, data.val, data.class_names)
        return table.assign(
            label_text=rows["label"], read_text=rows["prediction"], probability=rows["prediction_probability"]
        )
    probabilities = model.predict_proba(data.val.images).numpy()
    table = table.assign(label=data.val.labels.numpy(), read=probabilities.argmax(1))
    return table.join(pd.DataFrame(probabilities).add_prefix("p"))


def shown_settings(settings: dict[str, Any], choices: dict[str, str], overrides: list[str]) -> dict[str, Any]:
    """Return the settings for the HPARAMS tab: the groups' choices, those swept most often, and the overridden ones."""
    flat = {**flatten(settings), **choices}
    often = ["seed", "optim.lr", "data.batch_size", "trainer.max_epochs"]
    overridden = [setting_of(override) for override in overrides]
    return {key: flat[key] for key in [*choices, *often, *overridden] if key in flat}


def _spread(part: LabelledImages, count: int) -> LabelledImages:
    """Return ``count`` images of a split, evenly spaced, or all if it has fewer."""
    return part[torch.linspace(0, len(part) - 1, min(count, len(part))).round().long()]
