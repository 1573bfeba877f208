"""Checks of every data set after loading: the grey levels of writing, and the classes of each split."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from handwriting.data.dataset import END, HandwritingSet, LabelledImages
from handwriting.utils.errors import UserError

MOST = 0.75  # fraction of images that decides; strokes reach the border in few images
SHOWN = 5  # names of classes in a sentence
FEW_LEVELS = 64  # grey levels; where the largest of a data set is smaller, it is another scale, such as 0 to 16
LARGEST_COMPARED = 1 << 29  # bytes of training images that are compared with the test images: 0.1 s for MNIST

log = logging.getLogger(__name__)
say_once = functools.cache(log.info)
warn_once = functools.cache(log.warning)


def bright_on_dark(whole: HandwritingSet, invert: bool | str, source: str) -> HandwritingSet:
    """Return a data set of writing with bright foreground on dark background, in grey levels up to 255.

    ``invert`` true means that the images are dark on bright; ``auto`` decides for the training and the test set
    together, by the borders of the images. Photographs and other colour images stay as they are. Raises UserError if
    the two sets differ, or if ``invert`` is true for colour images.
    """
    whole = _up_to_255(whole, source)
    if whole.photographs or whole.train.images.shape[1] == 3:
        if invert is True:
            raise UserError(f"data.invert=true is for grey images of writing, and {source} has others: leave it out.")
        return whole
    if invert == "auto":
        invert = _is_dark_on_bright(whole, source)
        if invert:
            say_once(f"{source}: its images are dark on bright and are inverted (data.invert=false: they are not).")
    return _changed(whole, lambda images: 255 - images) if invert else whole


def as_trained(images: Tensor, invert: bool | str) -> Tensor:
    """Return grey images (N, 1, H, W) to predict, in the form that bright_on_dark gives those of training."""
    if int(images.max()) == 1:
        images = images * 255
    dark = bool(_bright_borders(images).mean() >= MOST) if invert == "auto" else invert
    return 255 - images if dark else images


def check_classes(train: LabelledImages, test: LabelledImages, names: Sequence[str], source: str) -> None:
    """Warn, once per data set, of a training set with one class, and of classes that one of the two sets lacks."""
    trained, tested = (set(split.labels.unique().tolist()) - {END} for split in (train, test))
    if len(trained) == 1:
        warn_once(f"{source}: all training images are of {_named(trained, names)}: there is nothing to learn.")
    if tested - trained:
        warn_once(
            f"{source}: the training set has no image of {_named(tested - trained, names)}, which the test set has: "
            "all images of it are misclassified."
        )
    if len(trained) > 1 and trained - tested:
        warn_once(
            f"{source}: the test set has no image of {_named(trained - tested, names)}, which the training set has: "
            "the test accuracy says nothing about it."
        )


def check_repeated(train: LabelledImages, test: LabelledImages, source: str) -> None:
    """Say, once per data set, how many test images are training images too."""
    if train.images.nbytes > LARGEST_COMPARED:
        return
    trained = {hash(image.tobytes()) for image in train.images.numpy()}
    if repeated := sum(hash(image.tobytes()) in trained for image in test.images.numpy()):
        say_once(
            f"{source}: {repeated:,} of {len(test):,} test images are training images too, which makes the test "
            "accuracy too high."
        )


def _named(labels: set[int], names: Sequence[str]) -> str:
    listed = [names[label] for label in sorted(labels)][:SHOWN]
    rest = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"class{'es' if len(labels) > 1 else ''} {', '.join(listed)}{rest}"


def _up_to_255(whole: HandwritingSet, source: str) -> HandwritingSet:
    """Return the data set with 255 instead of 1 if its images contain only zeros and ones."""
    splits = {"training": whole.train, "test": whole.test, "validation": whole.val}
    largest = {name: int(split.images.max()) for name, split in splits.items() if split}
    top = max(largest.values())
    if 1 < top <= FEW_LEVELS:
        raise UserError(f"{source} has grey levels only up to {top} of 255: multiply the images by 255/{top}.")
    if 1 not in largest.values():
        return whole
    if top > 1:
        (first, value), *others = largest.items()
        found = ", ".join([f"its {first} images is {value}", *(f"of its {name} images {one}" for name, one in others)])
        raise UserError(f"{source}: the largest value of {found}; the grey levels of all must be 0 to 255, or 0 and 1.")
    say_once(f"{source}: its images are of zeros and ones, which are taken for grey levels 0 and 255.")
    return _changed(whole, lambda images: images * 255)


def _is_dark_on_bright(whole: HandwritingSet, source: str) -> bool:
    train, test = _bright_borders(whole.train.images), _bright_borders(whole.test.images)
    for fraction, other, dark_on_bright, rest in (
        (train, test, "training", "test"),
        (test, train, "test", "training"),
    ):
        if fraction.mean() >= MOST and other.mean() <= 1 - MOST:
            raise UserError(
                f"{source}: its {dark_on_bright} images are dark on bright but its {rest} images bright on dark: "
                "invert one of the two files, or set data.invert=true or false if this is meant."
            )
    fraction = torch.cat([train, test]).mean().item()
    if 1 - MOST < fraction < MOST:
        warn_once(
            f"{source}: {fraction:.0%} of the images seem dark on bright and the others bright on dark; they are taken "
            "as they are (data.invert=true: all are inverted)."
        )
    return fraction >= MOST


def _bright_borders(images: Tensor) -> Tensor:
    """Return for each image 1.0 where most of its border is brighter than the middle of its grey levels, else 0.0."""
    lowest, highest = images.flatten(1).amin(1), images.flatten(1).amax(1)
    middle = lowest + (highest - lowest) // 2
    border = torch.cat([images[:, 0, 0], images[:, 0, -1], images[:, 0, :, 0], images[:, 0, :, -1]], dim=1)
    return ((border > middle[:, None]).sum(1, dtype=torch.int32) * 2 > border.shape[1]).float()


def _changed(whole: HandwritingSet, change: Callable[[Tensor], Tensor]) -> HandwritingSet:
    train, test, val = (
        split and replace(split, images=change(split.images)) for split in (whole.train, whole.test, whole.val)
    )
    return replace(whole, train=train, test=test, val=val)
