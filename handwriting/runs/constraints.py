"""The types and ranges of all settings, in one table; what does not fit is refused in one sentence.

A constraint here looks at one value alone. What depends on the data or on another setting is checked where both are
known: a limit above the number of training images, a fold above the number of folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from handwriting.utils.errors import LARGEST_SEED, UserError, check_number, check_whole


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What the value of a setting must be; ``optional`` allows null.

    ``says`` replaces the end of the sentence where the general one would say too little.
    """

    optional: bool = False
    says: str = ""

    def check(self, setting: str, value: object) -> None:
        """Raise UserError, with the name of the setting and its value, unless the value fits."""
        if value is None and self.optional:
            return
        try:
            self._check(setting, value)
        except UserError:
            if not self.says:
                raise
            raise UserError(f"{setting}={value} must be {self.says}.") from None

    def _check(self, setting: str, value: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Whole(Constraint):
    """A whole number between the limits, both included."""

    at_least: int
    at_most: float = inf

    def _check(self, setting: str, value: Any) -> None:
        check_whole(setting, value, self.at_least, self.at_most)


@dataclass(frozen=True, kw_only=True)
class Number(Constraint):
    """A finite number within the limits; ``above`` and ``below`` are limits that it may not take itself."""

    at_least: float = -inf
    at_most: float = inf
    above: float = -inf
    below: float = inf

    def _check(self, setting: str, value: Any) -> None:
        check_number(setting, value, self.at_least, self.at_most, self.above, self.below)


@dataclass(frozen=True)
class Wholes(Constraint):
    """A list of whole numbers from 1 to ``at_most``; at least ``shortest`` of them."""

    shortest: int = 0
    at_most: float = inf

    def _check(self, setting: str, value: Any) -> None:
        fits = _is_list(value) and len(value) >= self.shortest
        if not fits or any(type(one) is not int or not 1 <= one <= self.at_most for one in value):
            raise UserError(f"{setting}={value} must be a list of whole numbers of at least 1, as in [32,64].")


@dataclass(frozen=True)
class Numbers(Constraint):
    """A list of as many numbers as the example ``like`` has, ``each`` within its limits."""

    like: Sequence[float]
    each: Constraint = Number()

    def _check(self, setting: str, value: Any) -> None:
        if not _is_list(value) or len(value) != len(self.like):
            raise UserError(f"{setting}={value} must be {len(self.like)} numbers, as in {list(self.like)}.")
        for one in value:
            self.each.check(setting, one)


@dataclass(frozen=True)
class Names(Constraint):
    """A list of names, as in ``like``; which names there are is checked by the one that looks them up."""

    like: str

    def _check(self, setting: str, value: Any) -> None:
        if not _is_list(value):
            raise UserError(f"{setting}={value} must be a list, as in {self.like}.")


@dataclass(frozen=True)
class Text(Constraint):
    """A text, as in ``like``."""

    like: str

    def _check(self, setting: str, value: Any) -> None:
        if not isinstance(value, str) or not value:
            raise UserError(f"{setting}={value} must be a text, as in {self.like}.")


@dataclass(frozen=True)
class OneOf(Constraint):
    """One of a few values."""

    choices: tuple[object, ...]

    def _check(self, setting: str, value: Any) -> None:
        if not any(value == choice and type(value) is type(choice) for choice in self.choices):  # 1 == True
            names = [str(choice) for choice in self.choices]
            known = " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"
            raise UserError(f"{setting}={value} must be {known}.")


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


SEED = Whole(0, LARGEST_SEED)
FRACTION = Number(at_least=0, at_most=1)
NOT_NEGATIVE = Number(at_least=0)
DECAY = Number(at_least=0, below=1)  # of a moving average
DROPOUT = Number(at_least=0, below=1, says="at least 0 and below 1")
WIDTH = Number(above=0, at_most=4)
IMAGE_SIZE = Numbers((64, 160), Whole(16, 1024))  # height and width that photographs are fitted to, in pixels
TEST_FRACTION = Number(above=0, below=1, says="above 0 and below 1")
CLASS_NAMES = Names("[A,B,C]", optional=True)
OWN_FILES: dict[str, Constraint] = {
    "image_size": Numbers((32, 32), Whole(8, 1024), optional=True),  # height and width that images are fitted to
    "channels": OneOf((1, 3), optional=True, says="1 (grey), 3 (colour) or null"),
    "test_fraction": TEST_FRACTION,
    "test_seed": SEED,
    "class_names": CLASS_NAMES,
    "photographs": OneOf((False, True), says="true or false"),
}
BATCHES = Number(above=0, says="above 0: a fraction (0.5) or batches (5)")

# Settings by their dotted names, whatever the choices of the groups are.
SETTINGS: dict[str, Constraint] = {
    "seed": SEED,
    "compile": OneOf((False, True, "graph"), says="false, true or graph"),
    "on_nan": OneOf(("stop", "keep")),
    "resume": OneOf(("continue", "restart", "extend")),
    "init_from": Text("outputs/mnist/default", optional=True),
    "freeze": Names("[features]"),
    "tta.views": Whole(1, 1000),
    "report.smallest": Number(above=0, at_most=100),
    "race.max_seeds": Whole(2, 1000),
    "race.alpha": Number(above=0, at_most=0.5),
    "race.margin": Number(above=0, optional=True),
    "race.failed": OneOf(("worst", "drop")),
    "trainer.max_epochs": Whole(1),
    "trainer.limit_train_batches": BATCHES,
    "trainer.limit_val_batches": BATCHES,
    "trainer.limit_test_batches": BATCHES,
}

# Settings of what a config makes, by the function or class that takes them: one name may mean two things, as the depth
# of vgg and of resnet, or of a network from a user's file; and one class may stand at any place, as a step of augment.
CONSTRAINTS: dict[str, dict[str, Constraint]] = {
    # data
    "handwriting.data.datamodule.DataModule": {
        "invert": OneOf(("auto", True, False), says="auto, true or false"),
        "batch_size": Whole(1),
        "val_fraction": Number(at_least=0, below=1, says="at least 0 and below 1; 0 holds nothing out"),
        "split": OneOf(("holdout", "kfold", "bootstrap")),
        "folds": Whole(2),
        "fold": Whole(0),  # and below data.folds
        "split_seed": SEED,
        "limit": Whole(1, optional=True),  # and at most the number of training images
        "shuffle_seed": Whole(0, LARGEST_SEED, optional=True),
    },
    "handwriting.data.street_demo.read_street_demo": {
        "image_size": IMAGE_SIZE,
        "images": Whole(1),
        "test_images": Whole(1),
        "composition_seed": SEED,
    },
    "handwriting.data.street.read_street": {
        "image_size": IMAGE_SIZE,
        "extra": OneOf((False, True), says="true or false"),
        "crop": OneOf((False, True), says="true or false"),
        "margin": Number(at_least=0, at_most=10),
    },
    "handwriting.data.folder.read_folder": OWN_FILES,
    "handwriting.data.file.read_file": OWN_FILES,
    "handwriting.data.idx_sets.read_emnist": {
        "emnist_split": OneOf(("byclass", "bymerge", "balanced", "letters", "digits", "mnist")),
    },
    "handwriting.data.idx_sets.read_idx_files": {
        "class_names": CLASS_NAMES,
        "transpose": OneOf((False, True), says="true or false"),
    },
    "handwriting.data.kaggle_digits.read_kaggle_digits": {"test_fraction": TEST_FRACTION, "test_seed": SEED},
    # augment
    "handwriting.data.augment.Augmentation": {
        "variants": Names("[original,turned_left]"),
        "clean_epochs": Whole(0),
        "seed": SEED,
    },
    "handwriting.data.augment.Warp": {
        "probability": FRACTION,
        "degrees": Number(at_least=0, at_most=360),
        "scale": Number(at_least=0, at_most=2),
        "shear": Number(at_least=0, at_most=2),
        "shift": Number(at_least=0, at_most=1000),
        "bend": Number(at_least=0, at_most=1000),
        "knots": Whole(2, 100),
    },
    "handwriting.data.augment.Erasing": {
        "probability": FRACTION,
        "smallest": FRACTION,
        "largest": FRACTION,  # and at least smallest
        "fill": OneOf(("black", "colour")),
    },
    "handwriting.data.augment.Noise": {"probability": FRACTION, "deviation": NOT_NEGATIVE},
    "handwriting.data.augment.Blur": {"probability": FRACTION, "deviation": Number(at_least=0, at_most=4)},
    "handwriting.data.augment.Mixup": {"probability": FRACTION, "alpha": Number(above=0)},
    "handwriting.data.augment_scenes.SceneWarp": {
        "probability": FRACTION,
        "zoom": Number(at_least=0, at_most=2),
        "aspect": Number(at_least=0, at_most=2),
        "degrees": Number(at_least=0, at_most=360),
        "shear": Number(at_least=0, at_most=2),
        "perspective": Number(at_least=0, at_most=0.3),  # from 0.5 on a corner is infinitely far
        "shift": FRACTION,
    },
    "handwriting.data.augment_scenes.Colour": {
        "probability": FRACTION,
        "brightness": FRACTION,
        "contrast": Number(at_least=0, at_most=2),
        "saturation": Number(at_least=0, at_most=2),
        "hue": Number(at_least=0, at_most=360),
    },
    "handwriting.data.augment_scenes.Inversion": {"probability": FRACTION},
    "handwriting.data.augment_scenes.CutPaste": {"probability": FRACTION},
    # model
    "handwriting.models.net.Net": {"widths": Wholes(shortest=1), "hidden": Wholes(), "dropout": DROPOUT},
    "handwriting.models.net.MLP": {"hidden": Wholes(), "dropout": DROPOUT},
    "handwriting.models.quick_net.QuickNet": {
        "widths": Wholes(shortest=1),
        "kernels": Wholes(shortest=1),
        "strides": Wholes(shortest=1, at_most=2, says="1 (and a pooling) or 2 for each block"),
        "hidden": Wholes(),
        "dropout": DROPOUT,
        "margin": Whole(0),
    },
    "handwriting.models.glyph_net.GlyphNet": {
        "branches": Whole(1),
        "shared": Whole(0),  # and below the number of widths
        "widths": Wholes(shortest=1),
        "depths": Wholes(shortest=1),
        "dropout": DROPOUT,
        "pooling": OneOf(("max", "blur")),
        "margin": Whole(0),
    },
    "handwriting.models.ccnet.CCNet": {"dropout": DROPOUT},
    "handwriting.models.char_net.CharNet": {
        "dropout": DROPOUT,
        "dropout_position": OneOf(("after", "before"), says="after or before (the batch norm)"),
    },
    "handwriting.models.char_net.CharNetV1": {
        "dropout_position": OneOf(("after", "before"), says="after or before (the batch norm)"),
    },
    "handwriting.models.classic.alexnet": {"width": WIDTH, "dropout": DROPOUT},
    "handwriting.models.classic.vgg": {"depth": OneOf((11, 13, 16)), "width": WIDTH, "dropout": DROPOUT},
    "handwriting.models.classic.googlenet": {"width": WIDTH, "dropout": DROPOUT},
    "handwriting.models.classic.resnet": {"depth": OneOf((10, 18, 34)), "width": WIDTH},
    "handwriting.models.digit_heads.DigitHeads": {
        "max_length": Whole(1, 100),
        "backbone": OneOf(("ours", "resnet18")),
        "widths": Wholes(shortest=1),
        "depths": Wholes(shortest=1),
        "features": Whole(1),
        "dropout": DROPOUT,
        "guide": NOT_NEGATIVE,
    },
    "handwriting.models.crnn.CRNN": {
        "widths": Wholes(shortest=1),
        "depths": Wholes(shortest=1),
        "hidden": Whole(1),
        "dropout": DROPOUT,
        "beam": Whole(1, 1000),
        "guide": NOT_NEGATIVE,
    },
    "handwriting.models.detector.Detector": {
        "widths": Wholes(shortest=2),
        "depths": Wholes(shortest=2),
        "features": Whole(1),
        "candidates": Whole(1, 1000),
        "threshold": FRACTION,
        "overlap": FRACTION,
    },
    "handwriting.models.detect_then_read.DetectThenRead": {
        "shrink": Whole(1, 16),
        "crop_size": Numbers((64, 96), Whole(8, 1024), optional=True),
        "margin": NOT_NEGATIVE,
        "jitter": NOT_NEGATIVE,
    },
    "handwriting.models.ssdlite.SSDLite": {
        "width": WIDTH,
        "upsample": Whole(1, 4),
        "candidates": Whole(1),
        "threshold": FRACTION,
        "overlap": FRACTION,
    },
    "handwriting.models.baselines.Baseline": {"features": OneOf(("pixels", "hog"))},
    # optim, scheduler, loss
    "handwriting.training.optim.Muon": {
        "lr": NOT_NEGATIVE,
        "momentum": DECAY,
        "betas": Numbers((0.9, 0.999), DECAY),
        "weight_decay": NOT_NEGATIVE,
    },
    "handwriting.training.optim.CosineCycles": {"cycles": Whole(1)},
    "handwriting.training.losses.FocalLoss": {"gamma": NOT_NEGATIVE, "label_smoothing": FRACTION},
    # callbacks
    "handwriting.training.callbacks.EpochAveraging": {"start": FRACTION},
    "handwriting.training.callbacks.Snapshots": {"cycles": Whole(1)},
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping": {"patience": Whole(1), "min_delta": NOT_NEGATIVE},
}


def constraints_of(maker: Any) -> Mapping[str, Constraint]:
    """Return the constraints of what a function or class takes, by the names of its parameters.

    A class that takes what one of its bases takes has the constraints of that base.
    """
    takes = maker.__init__ if isinstance(maker, type) else maker
    name = f"{getattr(takes, '__module__', '')}.{getattr(takes, '__qualname__', '')}".removesuffix(".__init__")
    return CONSTRAINTS.get(name, {})
