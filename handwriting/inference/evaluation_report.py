"""The report on an evaluation: tables, figures, evaluation.json and per_class.csv in a folder, and what is printed."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from handwriting.data.dataset import pictures
from handwriting.inference.checkpoints import load_all
from handwriting.inference.evaluation import Evaluation, Group, evaluate_all, group_by_images, measure_speed
from handwriting.plots.images import draw_confused_pairs, draw_confusion, draw_confusions, draw_predictions
from handwriting.plots.style import as_file, shown_names
from handwriting.utils.files import write_bytes, write_text
from handwriting.utils.metrics import agreement, confused_pairs, per_class

SHOWN = 32  # images in a gallery


def evaluate(places: Sequence[Path], options: dict[str, Any], data_settings: Sequence[str]) -> int:
    """Evaluate the checkpoints of ``places``, write and print the results; return how many could not be loaded.

    Each is evaluated on its own data, changed by ``data_settings``. Those with the same images are also evaluated as an
    ensemble. ``options`` are those of the command by their names, such as ``split`` and ``tta.views``.
    """
    trained, reasons = load_all(places)
    for reason in reasons:
        print(f"{reason} It is omitted.", file=sys.stderr)
    groups = group_by_images(trained, str(options["split"]), data_settings)
    views, augment = int(options["tta.views"]), str(options["tta.augment"])
    for group in groups:
        found = evaluate_all(group.trained, group.part, str(options["ensemble"]), views, augment)
        figures = _figures(found, group)
        speed = measure_speed(trained[0], group.part) if len(trained) == 1 else {}
        alone = [one.probabilities.argmax(1) for one in found[: len(group.trained)]]
        right_by = agreement(alone, group.part.labels) if len(group.trained) > 1 else []
        folder = _folder(group, options, data_settings, len(groups) == 1)
        files = _write(folder, found, figures, group, {"speed": speed, "correct_by": right_by}, options)
        _print(found, speed, right_by, f"{group.label}, {options['split']}: {len(group.part):,} images", files)
    if len(groups) > 1:
        kind = {"test": "test", "val": "validation", "train": "training"}[options["split"]]
        print(
            f"These runs have {len(groups)} different {kind} sets: each has its own table, without a common ensemble."
        )
    return len(reasons)


def _folder(group: Group, options: dict[str, Any], data_settings: Sequence[str], alone: bool) -> Path:
    """Return the output folder for a group; two groups of one call never share a folder."""
    split = str(options["split"])
    if options["out"]:
        return Path(options["out"]) if alone else Path(options["out"]) / f"{group.label}_{split}"
    runs = {net.run for net in group.trained}
    own = not data_settings and (alone or len(runs) == 1)
    home = runs.pop() if len(runs) == 1 else Path(os.path.commonpath([run.parent for run in runs]))
    return home / "evaluation" / (split if own else f"{group.label}_{split}")


def _figures(found: Sequence[Evaluation], group: Group) -> dict[str, Any]:
    """Draw confusion, mistakes and a sample of the last evaluation, and the confusion of each if there are several."""
    last, names, part = found[-1], shown_names(group.class_names, group.glyphs), group.part
    images, labels = pictures(part.images), part.labels.numpy()
    sure, read = (values.numpy() for values in last.probabilities.max(1))

    def gallery(chosen: np.ndarray, title: str) -> Any:
        of = [names[label] for label in labels[chosen]], [names[label] for label in read[chosen]]
        return draw_predictions(images[chosen], *of, list(sure[chosen]), title)

    wrong = np.flatnonzero(read != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    spread = np.linspace(0, len(labels) - 1, min(SHOWN, len(labels))).round().astype(int)
    figures = {
        "mistakes": gallery(
            wrong[:SHOWN], f"{len(wrong):,} of {len(labels):,} misclassified, highest confidence first"
        ),
        "samples": gallery(spread, f"Sample of the predictions of {last.name}"),
    }
    if len(names) <= 20:
        figures["confusion"] = draw_confusion(last.counts, names)
    else:
        pairs = confused_pairs(last.counts)
        first_of = {label: images[np.argmax(labels == label)] for pair in pairs for label in pair[:2]}
        examples = [(first_of[first], first_of[second]) for first, second, _ in pairs]
        named = [(names[first], names[second], times) for first, second, times in pairs]
        figures["confusion"] = draw_confused_pairs(named, examples, last.counts)
    if len(found) > 1:
        figures["confusions"] = draw_confusions({one.name: one.counts for one in found[:12]}, names)
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
        "images": int(last.counts.sum()),
        "models": {one.name: one.scores for one in found},
        **{key: value for key, value in more.items() if value},
    }
    files = {
        "evaluation.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        "per_class.csv": per_class(last.counts, group.class_names, group.glyphs).to_csv(index=False),
    }
    for name, text in files.items():
        write_text(folder / name, text)
    for name, figure in figures.items():
        write_bytes(folder / f"{name}.{kind}", as_file(figure, kind, int(options["dpi"])))
    return [folder / name for name in [*files, *(f"{name}.{kind}" for name in figures)]]


def _print(
    found: Sequence[Evaluation], speed: dict[str, float], read_right_by: list[int], title: str, files: Sequence[Path]
) -> None:
    console = Console(highlight=False)
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("model", overflow="fold")
    columns = {"acc": "accuracy", "top5": "top-5", "f1": "macro F1"}  # evaluation.json has the rest
    columns = {key: head for key, head in columns.items() if key in found[0].scores}
    for head in [*columns.values(), "loss", "calibration error"]:
        table.add_column(head, justify="right")
    for one in found:
        shares = [f"{one.scores[key]:.2%}" for key in columns]
        table.add_row(one.name, *shares, f"{one.scores['loss']:.4f}", f"{one.scores['calibration_error']:.2%}")
    console.print(table)
    if read_right_by:
        none, *some, every = read_right_by
        console.print(
            f"Correct by all {len(some) + 1} models: {every:,} images; by some: {sum(some):,}; by none: {none:,}."
        )
    if speed:
        images = int(found[0].counts.sum())
        per_second = images / speed["all_seconds"]
        console.print(
            f"{images:,} images in {speed['all_seconds']:.2f} s ({per_second:,.0f} images/s in batches of "
            f"{speed['batch']}); a single image in {1000 * speed['one_seconds']:.2f} ms (medians after a warm-up)."
        )
    for file in files:
        console.print(f"  {file}", soft_wrap=True)
