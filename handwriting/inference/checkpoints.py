"""Loading of checkpoints: tensors and plain data only, so that no code in them is executed."""

import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from handwriting.data.checks import warn_once
from handwriting.models.image_classifier import ImageClassifier
from handwriting.models.sequence_model import SequenceModel, SequenceRecognizer, Transcript, ViewOutputs
from handwriting.runs.config import augmentation_of_views
from handwriting.runs.instantiate import build, build_model
from handwriting.runs.record import RESULT, Run, read_result, rename
from handwriting.runs.source import digests_of_code
from handwriting.runs.trust import NO_TRUST, Trust
from handwriting.utils.errors import UserError, folders_beside

LARGEST_FILE = 2 << 30  # bytes; the largest model of this package needs a hundredth of that
BEST = "checkpoints/best.ckpt"  # in a run's folder
LAST = "checkpoints/last.ckpt"


@dataclass(frozen=True)
class Trained:
    """A trained model and the metadata of its checkpoint."""

    path: Path
    model: ImageClassifier | SequenceRecognizer  # in eval mode; the second is for several characters in an image
    settings: dict[str, Any]
    class_names: tuple[str, ...]
    glyphs: tuple[str, ...]
    image_size: tuple[int, int]
    channels: int  # 1 grey, 3 colour
    photographs: bool  # whether images are fitted by letterbox, not prepared as grey writing
    examples: np.ndarray  # uint8 (classes, H, W), a training image of each class, or (0, H, W)
    foreground: dict[str, float]  # medians over training images, in pixels: longer side (size), stroke width (stroke)
    trust: Trust = NO_TRUST  # what else than this package may be imported for it

    @property
    def is_sequence(self) -> bool:
        """Whether it recognises several characters in an image."""
        return isinstance(self.model, SequenceRecognizer)

    @property
    def run(self) -> Path:
        """Return the folder of its run, or the folder of the file."""
        return run_of(self.path)

    @property
    def name(self) -> str:
        """Return its name: see name_of."""
        return name_of(self.path)


def run_of(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint's run, or the folder of the file if it is not in a run."""
    folder = checkpoint.parent
    return folder.parent if (folder.parent / RESULT).is_file() else folder


def name_of(checkpoint: Path) -> str:
    """Return a checkpoint's name: its run's folder and the snapshot, or that of the file if it is not in a run."""
    run = run_of(checkpoint)
    if run == checkpoint.parent:
        return checkpoint.stem
    return run.name if checkpoint.match(BEST) else f"{run.name},{checkpoint.stem}"


def predict_proba(trained: Trained, images: Tensor, views: int = 1, augment: str = "") -> Tensor:
    """Return the calibrated probabilities (N, classes) for uint8 images (N, C, H, W); uses a GPU if there is one.

    With ``views`` > 1 they are the mean over as many views of each image (test-time augmentation), made by the
    augmentation ``augment``, or else as in the run. Raises UserError if the augmentation makes fewer views.
    """
    return _classifier(trained).predict_proba(images, _views(trained, views, augment))


def log_proba(trained: Trained, images: Tensor, views: int = 1, augment: str = "") -> Tensor:
    """Return the logarithms of the probabilities before calibration; the arguments are those of predict_proba."""
    return _classifier(trained).log_proba(images, _views(trained, views, augment))


def outputs_of(trained: Trained, images: Tensor, views: int = 1, augment: str = "") -> list[ViewOutputs]:
    """Return the outputs of a model for uint8 images (N, C, H, W) with several characters each, in batches.

    ``views`` and ``augment`` are those of predict_proba.
    """
    assert isinstance(trained.model, SequenceRecognizer)
    return _on_device(trained).outputs(images, _views(trained, views, augment))


def transcribe(trained: Trained, images: Tensor, views: int = 1, augment: str = "") -> list[Transcript]:
    """Return the calibrated transcripts of uint8 images (N, C, H, W), merged over the views, as outputs_of has them."""
    outputs, model = outputs_of(trained, images, views, augment), _on_device(trained)
    return model.calibrate(model.transcripts(outputs))


def _classifier(trained: Trained) -> ImageClassifier:
    assert isinstance(trained.model, ImageClassifier)
    return _on_device(trained)


def _on_device(trained: Trained) -> Any:
    return trained.model.to("cuda" if torch.cuda.is_available() else "cpu")


def _views(trained: Trained, number: int, augment: str) -> Any:
    """Return what makes the views of a batch, Views or SequenceViews; None for one view."""
    if number <= 1:
        return None
    views = {"tta": {"augment": augment}} if augment else {}
    config = augmentation_of_views(trained.settings | views, trained.trust.folders)
    trained.trust.check(config, "augment", trained.path)
    augmentation = build("augment", config)
    return partial(augmentation.scene_views if trained.is_sequence else augmentation.views, number=number)


def find_checkpoints(place: Path) -> list[Path]:
    """Return the checkpoint at a path, the best one of a run, or those of all finished runs in a folder.

    Says so if that run is unfinished. Raises UserError if there is no checkpoint.
    """
    if place.is_file():
        _warn_if_unfinished(place)
        return [place]
    if not place.is_dir():
        hint = folders_beside(place) or " Give one, such as outputs/mnist/RUN."
        raise UserError(f"{place} is neither a checkpoint nor a folder of runs.{hint}")
    if (place / RESULT).is_file():
        if not (place / BEST).is_file():
            raise UserError(
                f"{place} has no {BEST}: it is a scikit-learn model, which is not saved, or its training has reached "
                "none yet; in the second case, repeat its command."
            )
        _warn_if_unfinished(place / BEST)
        return [place / BEST]
    runs = [run for entry in sorted(place.iterdir()) if (run := read_result(entry)) and run.status == "done"]
    found = [run.folder / BEST for run in runs if (run.folder / BEST).is_file()]
    if not found:
        inner = sorted({result.parent.parent for result in place.glob(f"*/*/{RESULT}")})
        where = f" Did you mean {inner[0]}?" if inner else ""
        raise UserError(f"{place} has no finished run with a {BEST}.{where}")
    return found


def find_checkpoint(place: Path) -> Path:
    """Return the only checkpoint that find_checkpoints finds. Raises UserError if there are several."""
    found = find_checkpoints(place)
    if len(found) > 1:
        raise UserError(f"{place} has {len(found)} runs: give one of them, such as {found[0].parent.parent}.")
    return found[0]


def unfinished(run: Run) -> str:
    """Return how far a run has come, such as ``interrupted after epoch 3 of 10``; '' if it is finished."""
    if run.status == "done":
        return ""
    epochs = next(filter(None, (_epochs_in(run.folder / path) for path in (LAST, BEST))), 0)
    most = run.settings.get("trainer.max_epochs")
    how = "running or killed" if run.status == "running" else run.status
    return f"{how} after epoch {epochs} of {most}" if epochs else f"{how} before the end of its first epoch"


def _epochs_in(checkpoint: Path) -> int:
    """Return how many epochs a checkpoint was trained; 0 if it cannot be read."""
    try:
        return int(_read(checkpoint)["epoch"]) + 1
    except (UserError, KeyError, TypeError, ValueError):
        return 0


def _warn_if_unfinished(checkpoint: Path) -> None:
    run = read_result(run_of(checkpoint))
    if run and (progress := unfinished(run)):
        warn_once(f"{run.folder} is unfinished ({progress}): its model so far is used.")


def snapshots_of(checkpoint: Path) -> list[Path]:
    """Return the snapshots at the ends of the learning rate cycles of a run, in order, or else its best checkpoint."""
    found = checkpoint.parent.glob("cycle*.ckpt") if checkpoint.match(BEST) else []
    return sorted(found, key=lambda path: (len(path.name), path.name)) or [checkpoint]


def check_file(path: Path) -> None:
    """Raise UserError if a checkpoint is damaged; this compares only checksums and takes about 2 ms."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise UserError(_damaged(path)) from error
    if damaged:
        raise UserError(_damaged(path))


def load_trained(path: Path, trust: Trust = NO_TRUST) -> Trained:
    """Read a checkpoint and rebuild its model.

    Raises UserError if it is damaged, foreign, or names code that is neither of this package nor covered by ``trust``.
    """
    content = _read(path)
    facts = content.get("handwriting") if isinstance(content, Mapping) else None
    if not isinstance(facts, Mapping) or not {"settings", "class_names", "image_size"} <= facts.keys():
        raise UserError(f"{path} is a checkpoint of another program: it does not name its model.")
    try:
        settings, names = rename(facts["settings"]), [str(name) for name in facts["class_names"]]
        size = facts["image_size"]
        trust.check(settings["model"], "model", path)
        height, width = int(size[0]), int(size[1])
        say_changed_code(path, settings, settings["model"])
        channels, photographs = int(facts.get("channels", 1)), bool(facts.get("photographs", False))
        if channels not in (1, 3):
            raise ValueError(f"images of {channels} channels")
        net = build_model(_without_weights(settings["model"]), len(names), (height, width), channels)
        model = SequenceRecognizer(net) if isinstance(net, SequenceModel) else ImageClassifier(net)
        model.load_state_dict(content["state_dict"])
        _set_calibration(model, facts)
        glyphs, foreground = (
            tuple(map(str, facts.get("glyphs", ()))),
            dict(facts.get("ink", {"size": 20.0, "stroke": 2.5})),
        )
        examples = np.asarray(facts.get("examples", np.zeros((0, height, width), np.uint8)))
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} does not fit the model that it names; it may come from another version: train it again with "
            f"force=true ({shorten(str(error), 120, placeholder=' …')})."
        ) from error
    shapes = ((0, height, width), (len(names), height, width))
    if examples.dtype != np.uint8 or examples.shape not in shapes or len(glyphs) not in (0, len(names)):
        raise UserError(
            f"{path} does not have one glyph and one example for each of its {len(names)} classes: it is not loaded."
        )
    classes, size = tuple(names), (height, width)
    return Trained(
        path, model.eval(), settings, classes, glyphs, size, channels, photographs, examples, foreground, trust
    )


def say_changed_code(path: Path, settings: Mapping[str, Any], config: Any) -> None:
    """Warn once of each of the user's modules in a ``config`` of a checkpoint whose source changed since training."""
    stored = settings.get("code") or {}
    for module, digest in digests_of_code(config).items():
        if stored.get(module, digest) != digest:
            warn_once(f"{module} changed since the training of {name_of(path)}: the results may be wrong; retrain it.")


def _set_calibration(model: ImageClassifier | SequenceRecognizer, facts: Mapping[str, Any]) -> None:
    """Take the calibration from a checkpoint's facts; older ones have none. Raises ValueError if it is invalid."""
    if isinstance(model, ImageClassifier):
        model.temperature = float(facts.get("temperature", 1.0))
        if not 0 < model.temperature < math.inf:
            raise ValueError(f"temperature {model.temperature}")
    elif facts.get("platt") is not None:
        slope, intercept = map(float, facts["platt"])
        if not (0 < slope < math.inf and math.isfinite(intercept)):
            raise ValueError(f"platt {slope}, {intercept}")
        model.platt = slope, intercept


def read_weights(path: Path) -> dict[str, Any]:
    """Return the state dict of a checkpoint. Raises UserError if it is damaged, has none, or is not safe to load."""
    content = _read(path)
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise UserError(f"{path} is a checkpoint of another program: it has no state_dict.")
    return dict(weights)


def load_all(
    places: Sequence[Path], trust: Trust = NO_TRUST
) -> tuple[list[Trained], dict[str, UserError], dict[str, str]]:
    """Load all checkpoints of ``places``; return them and, by their names, why the others in a folder are left out.

    First come the errors of those that cannot be loaded, then the progress of runs that are unfinished.
    Raises UserError if none can be loaded, or if a checkpoint that was given alone cannot be loaded.
    """
    trained: list[Trained] = []
    reasons: dict[str, UserError] = {}
    left_out: dict[str, str] = {}
    for place in places:
        found = find_checkpoints(place)
        if place.is_dir() and not (place / RESULT).is_file():
            runs = [run for entry in sorted(place.iterdir()) if (run := read_result(entry))]
            left_out |= {run.folder.name: f"it is unfinished ({how})." for run in runs if (how := unfinished(run))}
        for checkpoint in [one for path in found for one in (snapshots_of(path) if place.is_dir() else [path])]:
            try:
                trained.append(load_trained(checkpoint, trust))
            except UserError as error:
                if len(found) == 1:
                    raise
                reasons[name_of(checkpoint)] = error
    if not trained:
        raise next(iter(reasons.values()))
    return trained, reasons, left_out


def _without_weights(config: Any) -> Any:
    """Return a model's config without the files of weights that its training began with: the checkpoint has its own."""
    if not isinstance(config, Mapping):
        return config
    return {key: None if key == "weights" else _without_weights(value) for key, value in config.items()}


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            if path.stat().st_size > LARGEST_FILE:
                raise UserError(
                    f"{path} is larger than {LARGEST_FILE >> 30} GiB, the maximum for a checkpoint of this package."
                )
            content = _load(file, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    check_file(path)  # torch does not compare checksums: weights with a changed byte would load
    return content


def _load(file: IO[bytes], path: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "is not a checkpoint, or contains more than tensors and plain data: it is not loaded."
        raise UserError(f"{path} {reason}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"{path} is damaged or truncated: it cannot be read as a checkpoint."
