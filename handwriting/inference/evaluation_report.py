"""The report on an evaluation: tables, figures and evaluation.json in a folder, and what is printed."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from handwriting.data.dataset import pictures
from handwriting.inference.checkpoints import load_all
from handwriting.inference.evaluation import Evaluation, Group, evaluate_all, group_by_images, measure_speed
from handwriting.plots.images import draw_accuracy_by, draw_confusions, draw_differences
from handwriting.plots.style import as_file, shown_names
from handwriting.reports.stats import interval_for_new_images, mcnemar
from handwriting.runs.record import PREDICTIONS
from handwriting.runs.trust import Trust
from handwriting.utils.files import as_csv, write_bytes, write_text
from handwriting.utils.metrics import NONE, accuracy_by, agreement

SHOWN = 32  # images in a gallery


def evaluate(places: Sequence[Path], options: dict[str, Any], data_settings: Sequence[str], trust: Trust) -> int:
    """Evaluate the checkpoints of ``places``, write and print the results; return how many could not be loaded.

    Each is evaluated on its own data, changed by ``data_settings``. Those with the same images are also evaluated as an
    ensemble. ``options`` are those of the command by their names, such as ``split`` and ``tta.views``.
    """
    trained, errors, unfinished = load_all(places, trust)
    reasons = {name: str(error) for name, error in errors.items()} | unfinished
    groups = group_by_images(trained, str(options["split"]), data_settings)
    views, augment = int(options["tta.views"]), str(options["tta.augment"])
    for group in groups:
        found = evaluate_all(group, str(options["ensemble"]), views, augment)
        properties = group.kind.properties(group.dataset)
        by = {name: accuracy_by(found[-1].right, values) for name, values in properties.items()}
        figures = _figures(found, group, by)
        speed = measure_speed(trained[0], group.dataset) if len(trained) == 1 else {}
        alone = [one.right for one in found[: len(group.trained)]]
        right_by = agreement(alone) if len(alone) > 1 else []
        pair, sentence = _compare(found[0], found[1], group, figures) if len(alone) == 2 else ({}, "")
        more = {"accuracy_by": {name: table.to_dict("records") for name, table in by.items()}}
        more |= {"not_evaluated": reasons, "difference": pair}
        folder = _folder(group, options, data_settings, len(groups) == 1)
        files = _write(folder, found, figures, group, more | {"speed": speed, "correct_by": right_by}, options)
        title = f"{group.label}, {options['split']}: {len(group.dataset):,} images"
        _print(found, group.kind.COLUMNS, speed, right_by, title, files, sentence)
    if len(groups) > 1:
        kind = {"test": "test", "val": "validation", "train": "training"}[options["split"]]
        print(
            f"These runs have {len(groups)} different {kind} sets: each has its own table, without a common ensemble."
        )
    for name, reason in reasons.items():
        print(f"{name} is not evaluated: {reason}", file=sys.stderr)
    return len(errors)


def _compare(one: Evaluation, other: Evaluation, group: Group, figures: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Compare two models on the same images: numbers for evaluation.json, a sentence, and a figure in ``figures``."""
    only, only_other, p = mcnemar(one.right, other.right)
    mean, half_width = interval_for_new_images((one.right.astype(float) - other.right)[None])
    differ = np.flatnonzero(one.right != other.right)
    if len(differ):
        some = differ[np.linspace(0, len(differ) - 1, min(SHOWN, len(differ))).round().astype(int)]
        first, second = (
            group.kind.predictions(each.answer, group.dataset, group.class_names).iloc[some] for each in (one, other)
        )
        title = f"{len(differ):,} images on which one is right and one is wrong: {one.name} | {other.name}"
        figures["differences"] = draw_differences(
            pictures(group.dataset.images[some]),
            first["label"].tolist(),
            first["prediction"].tolist(),
            second["prediction"].tolist(),
            title,
        )
    sentence = (
        f"Only {one.name} is right on {only:,} images, only {other.name} on {only_other:,}: a difference of "
        f"{100 * mean:.2f} ± {100 * half_width:.2f} percentage points (95 % interval for new images and these two "
        f"trainings; McNemar's exact test, p = {p:.2g})."
    )
    numbers = {"only_first": only, "only_second": only_other, "accuracy": mean, "half_width": half_width, "p": p}
    return numbers, sentence


def _folder(group: Group, options: dict[str, Any], data_settings: Sequence[str], alone: bool) -> Path:
    """Return the output folder for a group; two groups of one call never share a folder."""
    split = str(options["split"])
    if options["out"]:
        return Path(options["out"]) if alone else Path(options["out"]) / f"{group.label}_{split}"
    runs = {net.run for net in group.trained}
    own = not data_settings and (alone or len(runs) == 1)
    home = runs.pop() if len(runs) == 1 else Path(os.path.commonpath([run.parent for run in runs]))
    return home / "evaluation" / (split if own else f"{group.label}_{split}")


def _figures(found: Sequence[Evaluation], group: Group, by: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Draw confusion, mistakes and a sample of the last evaluation, and the confusion of each if there are several.

    ``by`` are tables of accuracy_by.
    """
    last, kind, names = found[-1], group.kind, shown_names(group.class_names, group.glyphs)
    outcomes = names if len(names) == len(last.counts) else [*names, NONE]
    wrong = np.flatnonzero(~last.right)
    surest = wrong[np.argsort(-last.sure[wrong], kind="stable")][:SHOWN]
    some = np.linspace(0, len(group.dataset) - 1, min(SHOWN, len(group.dataset))).round().astype(int)
    galleries = {
        "mistakes": (surest, f"{len(wrong):,} of {len(group.dataset):,} misclassified, highest confidence first"),
        "samples": (some, f"Sample of the predictions of {last.name}"),
    }
    figures = {
        name: kind.draw_gallery(last.answer, group.dataset, names, chosen, title)
        for name, (chosen, title) in galleries.items()
    }
    figures["confusion"] = kind.draw_counts(last.counts, group.dataset, outcomes)
    if by:
        figures["accuracy_by"] = draw_accuracy_by(by)
    if len(found) > 1:
        counts, counted = {one.name: one.counts for one in found[:12]}, "images" if outcomes is names else "characters"
        figures["confusions"] = draw_confusions(counts, outcomes, counted)
    return figures


def _write(
    folder: Path,
    found: Sequence[Evaluation],
    figures: dict[str, Any],
    group: Group,
    more: dict[str, Any],
    options: dict[str, Any],
) -> list[Path]:
    last, kind = found[-1], str(options["format"])
    record = {
        "data": group.label,
        "split": options["split"],
        "images": len(group.dataset),
        "models": {one.name: one.scores for one in found},
        **{key: value for key, value in more.items() if value},
    }
    files = {
        "evaluation.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        "per_class.csv": group.kind.table(last.counts, group.class_names, group.glyphs).to_csv(index=False),
        PREDICTIONS: as_csv(group.kind.predictions(last.answer, group.dataset, group.class_names)),
    }
    for name, text in files.items():
        write_text(folder / name, text)
    for name, figure in figures.items():
        write_bytes(folder / f"{name}.{kind}", as_file(figure, kind, int(options["dpi"])))
    return [folder / name for name in [*files, *(f"{name}.{kind}" for name in figures)]]


def _print(
    found: Sequence[Evaluation],
    columns: Mapping[str, str],
    speed: dict[str, float],
    right_by: list[int],
    title: str,
    files: Sequence[Path],
    sentence: str,
) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("model", overflow="fold")
    columns = {key: head for key, head in columns.items() if key in found[0].scores}  # evaluation.json has the rest
    for head in columns.values():
        table.add_column(head, justify="right")
    for one in found:
        table.add_row(one.name, *(_number(key, one.scores.get(key)) for key in columns))
    console.print(table)
    if right_by:
        none, *some, every = right_by
        console.print(
            f"Correct by all {len(some) + 1} models: {every:,} images; by some: {sum(some):,}; by none: {none:,}."
        )
    if sentence:
        console.print(Text(sentence))
    if speed:
        images = len(found[0].right)
        per_second = images / speed["all_seconds"]
        console.print(
            f"{images:,} images in {speed['all_seconds']:.2f} s ({per_second:,.0f} images/s in batches of "
            f"{speed['batch']}); a single image in {1000 * speed['one_seconds']:.2f} ms (medians after a warm-up)."
        )
    for file in files:
        console.print(f"  {file}", soft_wrap=True)


def _number(score: str, value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if score == "loss" else f"{value:.2%}"
