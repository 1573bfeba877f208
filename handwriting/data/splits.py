"""Stratified validation splits, folds, bootstrap draws and subsets of the training images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.utils import resample
from torch import Tensor

from handwriting.utils.errors import LARGEST_SEED, UserError, check_whole


class Stratum(NamedTuple):
    """What a split is stratified by, for messages: the word for it, and the names of its values if they have any."""

    word: str = "class"
    names: Sequence[str] = ()

    def called(self, value: int) -> str:
        """Return a value with the word for it, such as ``class A``."""
        return f"{self.word} {self.names[value] if self.names else value}"


CLASS = Stratum()


def split_training(
    labels: Tensor, split: str, val_fraction: float, folds: int, fold: int, seed: int, stratum: Stratum = CLASS
) -> tuple[Tensor, Tensor]:
    """Return the indices (training, validation) of a stratified split, the same for the same seed.

    ``labels`` are what it is stratified by, and ``stratum`` is what one of them is called in messages.

    ``holdout`` holds out ``val_fraction`` of the images, ``kfold`` the fold with number ``fold`` of ``folds``.
    ``bootstrap`` draws as many images as there are, with replacement (draw number ``fold``), and holds out those not
    drawn, about 37 % (B. Efron, 1983, doi:10.1080/01621459.1983.10477973). Raises UserError for invalid numbers, or if
    a class would have no image in one of the sets.
    """
    check_whole("data.fold", fold, at_least=0, at_most=folds - 1 if split == "kfold" else LARGEST_SEED - seed)
    if split == "holdout":
        if fold:
            raise UserError(f"data.fold={fold} has no effect with data.split=holdout: add data.split=kfold.")
        return split_holdout(labels, val_fraction, seed, stratum)
    if split == "kfold":
        return split_fold(labels, folds, fold, seed, stratum)
    return split_bootstrap(labels, seed + fold, stratum)


def split_fold(labels: Tensor, folds: int, fold: int, seed: int, stratum: Stratum = CLASS) -> tuple[Tensor, Tensor]:
    """Return the indices (all others, one fold) of stratified folds."""
    rarest, count = min(enumerate(labels.bincount().tolist()), key=lambda pair: (pair[1] or len(labels), pair[0]))
    if count < folds:
        raise UserError(
            f"data.folds={folds} needs as many images of each {stratum.word}, but {stratum.called(rarest)} has {count}."
        )
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels.numpy())
    kept, held_out = list(splits)[fold]
    return torch.from_numpy(kept), torch.from_numpy(held_out)


def split_bootstrap(labels: Tensor, seed: int, stratum: Stratum = CLASS) -> tuple[Tensor, Tensor]:
    """Return the indices (drawn with replacement, not drawn) of a stratified bootstrap."""
    whole = np.arange(len(labels))
    drawn = np.sort(np.asarray(resample(whole, random_state=seed, stratify=labels.numpy())))
    held_out = np.setdiff1d(whole, drawn)
    _check_strata(labels, torch.from_numpy(drawn), "data.split=bootstrap", "training", stratum)
    _check_strata(labels, torch.from_numpy(held_out), "data.split=bootstrap", "validation", stratum)
    return torch.from_numpy(drawn), torch.from_numpy(held_out)


def split_holdout(
    labels: Tensor, fraction: float, seed: int, stratum: Stratum = CLASS, setting: str = "data.val_fraction"
) -> tuple[Tensor, Tensor]:
    """Return the indices (training, held out) of a stratified draw, the same for the same seed.

    ``fraction`` 0 holds nothing out; ``setting`` is its name in messages. Raises UserError if a class would have no
    image in one of the sets.
    """
    if fraction == 0:
        return torch.arange(len(labels)), torch.arange(0)
    size = round(len(labels) * fraction)
    use = "test" if setting == "data.test_fraction" else "validation"
    setting = f"{setting}={fraction:g}"
    kept, held_out = _draw(labels, size, seed, setting, stratum)
    _check_strata(labels, kept, setting, "training", stratum)
    _check_strata(labels, held_out, setting, use, stratum)
    return kept, held_out


def draw_subset(labels: Tensor, limit: int, seed: int, stratum: Stratum = CLASS) -> Tensor:
    """Return the indices of a stratified draw of ``limit`` images.

    Raises UserError when there are fewer images, or when a class would have none.
    """
    if limit > len(labels):
        raise UserError(f"data.limit={limit} asks for more than the {len(labels):,} training images there are.")
    if limit == len(labels):
        return torch.arange(limit)
    chosen = _draw(labels, limit, seed, f"data.limit={limit}", stratum)[1]
    _check_strata(labels, chosen, f"data.limit={limit}", "training", stratum)
    return chosen


def _draw(labels: Tensor, size: int, seed: int, setting: str, stratum: Stratum) -> tuple[Tensor, Tensor]:
    strata = len(labels.unique())
    if not strata <= size <= len(labels) - strata:
        most = len(labels) - strata
        possible = f"{strata} to {most:,}" if strata < most else most
        fractions = f" (a fraction of at least {strata / len(labels):.2g})" if "fraction" in setting else ""
        remedy = "use more images" if most < strata else f"choose a value that takes {possible} images{fractions}"
        raise UserError(
            f"{setting} takes {size:,} of {len(labels):,} images, but each set needs one of each {stratum.word}, of "
            f"which there are {strata}: {remedy}."
        )
    counts = labels.bincount()
    if 1 in counts:
        lonely = counts.tolist().index(1)
        raise UserError(
            f"{setting} needs two images of each {stratum.word}, but {stratum.called(lonely)} has only one; use more "
            "images."
        )
    rest, drawn = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    return torch.from_numpy(rest), torch.from_numpy(drawn)


def _check_strata(labels: Tensor, chosen: Tensor, setting: str, use: str, stratum: Stratum) -> None:
    # A stratified draw rounds, and the number of images of a rare stratum may round to zero.
    if lost := set(labels.tolist()) - set(labels[chosen].tolist()):
        raise UserError(
            f"{setting} leaves {stratum.called(min(lost))}, a rare one, without a {use} image: "
            "choose a value nearer to half of the images."
        )
