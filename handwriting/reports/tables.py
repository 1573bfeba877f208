"""A report as text: the table on the terminal, summary.csv and summary.md. Imports no torch."""

import errno
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from handwriting.reports.comparisons import sentences_on, short_names
from handwriting.reports.figures import write_plots
from handwriting.reports.groups import as_text
from handwriting.reports.report import Report
from handwriting.runs.record import RESULT, Run
from handwriting.utils.files import write_text
from handwriting.utils.text import fold

if TYPE_CHECKING:
    import pandas as pd

SHORTEST_LABEL = 16  # characters that a label always has in a line; a longer one folds, at its commas where it can
MOST_NAMED = 5  # runs that failed for the same reason
MOST_DEVICES = 4  # named where the runs were trained on several
# Columns that only some data sets fill; the narrow terminal leaves out the last ones, summary.md has all.
PARTS = {
    "test/top5": "top 5 %",
    "test_tta/acc": "test by views %",
    "test_augmented/acc": "augmented test %",
    "train_clean/acc": "train %",
    "train_augmented/acc": "augmented train %",
}


def write_tables(report: Report) -> list[Path]:
    """Write summary.csv (fractions), summary.md (percent) and, of several seeds, differences.csv; return the paths."""
    texts = {"summary.csv": summary_frame(report).to_csv(index=False), "summary.md": _markdown(report)}
    if report.verdicts:
        texts["differences.csv"] = differences_frame(report).to_csv(index=False)
    if len(folds := out_of_fold_frame(report)):
        texts["out_of_fold.csv"] = folds.to_csv(index=False)
    for name, text in texts.items():
        write_text(report.folder / name, text)
    return [report.folder / name for name in texts]


def summary_frame(report: Report) -> "pd.DataFrame":
    """Return a row a setting: what differs, seeds, metrics as fractions with half-widths, epochs, seconds."""
    import pandas as pd

    rows, metrics = [], _metrics(report)
    for setting in report.settings:
        settings = setting.runs[0].settings
        row: dict[str, Any] = {"setting": setting.label} | {key: as_text(settings.get(key)) for key in report.keys}
        row["seeds"] = len(setting.done)
        for metric in metrics:
            row[metric], row[f"{metric} ±"] = setting.interval(metric)
        row |= {key: setting.mean(key) for key in ("epochs", "seconds", "parameters")}
        # Whole where it is whole: epochs may differ among the seeds when training stops early.
        row |= {key: int(row[key]) for key in ("epochs", "parameters") if row[key] == row[key] // 1}
        row["not finished"] = len(setting.runs) - len(setting.done)
        row["reason"] = "; ".join(dict.fromkeys(_reason(run) for run in setting.runs if run.status != "done"))
        rows.append(row)
    return pd.DataFrame(rows)


def differences_frame(report: Report) -> "pd.DataFrame":
    """Return a row a pair of settings that share seeds: the paired difference as a fraction, and what it proves."""
    import pandas as pd

    verdicts = report.verdicts
    columns = {  # and not rows: of 300 configurations there are 44,850 pairs
        "better": [verdict.better.label for verdict in verdicts],
        "worse": [verdict.worse.label for verdict in verdicts],
        "test/acc difference": [verdict.difference.mean for verdict in verdicts],
        "±": [verdict.difference.half_width for verdict in verdicts],
        "seeds": [verdict.difference.pairs for verdict in verdicts],
        "p": [verdict.difference.p for verdict in verdicts],
        "p (Holm)": [verdict.p for verdict in verdicts],
        "shown": [verdict.shown for verdict in verdicts],
    }
    return pd.DataFrame(columns)


def out_of_fold_frame(report: Report) -> "pd.DataFrame":
    """Return what the runs of data.split=kfold made of their held-out images: a row a setting, seed, fold and image."""
    import pandas as pd

    frames = []
    for setting in report.settings:
        for run in setting.done:
            if run.settings.get("data.split") == "kfold" and (held_out := run.held_out()) is not None:
                which = {"setting": setting.label, "seed": run.settings["seed"], "fold": run.settings["data.fold"]}
                frames.append(pd.concat([pd.DataFrame(which, index=held_out.index), held_out], axis=1))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _metrics(report: Report) -> list[str]:
    """Return the four metrics that every run has, then what else any run was tested on."""
    always = ["test/acc", "val/acc", "test/loss", "val/loss"]
    found = {metric for setting in report.settings for run in setting.done for metric in run.metrics}
    return [*always, *sorted(found - {*always, "train/acc", "train/loss"})]


class PipeConsole(Console):
    """A rich console that raises BrokenPipeError where its reader has gone; rich's own ends the program."""

    def on_broken_pipe(self) -> None:
        """Raise the error again."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def show_report(report: Report, console: Console, known: Collection[str] = ()) -> OSError | None:
    """Write a report's tables and plots and print it; where its folder cannot be written to, print, and return why.

    ``known`` are reasons of failures that were printed before.
    """
    paths: list[Path] = []
    try:
        paths += write_tables(report)
        paths += write_plots(report)
    except OSError as error:
        print_report(report, paths, console, known)
        what = "The rest was not" if paths else "Nothing was"
        sentence = f"{what} written: {report.folder} cannot be written to ({error.strerror})."
        console.print(Text(sentence), soft_wrap=True)
        return error
    print_report(report, paths, console, known)
    return None


def print_report(report: Report, paths: Sequence[Path], console: Console, known: Collection[str] = ()) -> None:
    """Print the table, the comparisons, the failures under it, and the paths of what was written."""
    cells = _cells(report)
    longest_word = max(len(word) for row in cells for word in re.split(r"(?<=,)|\s", row[0]))
    label_width = min(longest_word, max(SHORTEST_LABEL, console.width // 3))
    header, *rows = _fit(cells, label_width, console.width)
    table = Table(
        title=str(report.folder),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for i, column in enumerate(header):
        first = i == 0
        table.add_column(
            column,
            justify="left" if first else "right",
            overflow="fold",
            no_wrap=not first,
            min_width=label_width if first else None,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a label such as [32,64] is no markup
    console.print(table)
    for sentence in _sentences(report, 5, known):
        console.print(Text(sentence), soft_wrap=True)
    for path in paths:
        console.print(Text(f"  {path}"), soft_wrap=True)


def _fit(rows: list[list[str]], label_width: int, width: int) -> list[list[str]]:
    """Leave out the last columns where the terminal is too narrow, so that no figure is cut off; fold the labels."""
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], label_width + 2)
    columns = len(widths)
    while sum(widths[:columns]) > width and columns > 2:
        columns -= 1
    room = max(label_width, width - sum(widths[1:columns]) - 2)
    return [[fold(row[0], room), *row[1:columns]] for row in rows]


def _reason(run: Run) -> str:
    return run.record.get("reason") or ("not finished" if run.status == "running" else run.status)


def _percent(interval: tuple[float, float | None]) -> str:
    mean, half_width = interval
    if math.isnan(mean):
        return "–"
    return f"{mean:.2%}".rstrip("%") + (f" ± {half_width * 100:.2f}" if half_width is not None else "")


def _cells(report: Report) -> list[list[str]]:
    parts = [part for part in PARTS if any(setting.values(part) for setting in report.settings)]
    header = [
        "setting",
        f"{report.repeat}s",
        "test %",
        "validation %",
        "epochs",
        "seconds",
        "weights",
        *(PARTS[part] for part in parts),
    ]
    rows = [header]
    for setting in report.settings:
        if not setting.done:
            rows.append([setting.label, "0", *["–"] * (len(header) - 2)])
            continue
        star = " *" if setting is report.chosen and len(report.settings) > 1 else ""
        rows.append(
            [
                setting.label + star,
                str(len(setting.done)),
                _percent(setting.interval("test/acc")),
                _percent(setting.interval("val/acc")),
                f"{setting.mean('epochs'):g}",
                f"{setting.mean('seconds'):.1f}",
                f"{setting.mean('parameters'):,.0f}",
                *(_percent(setting.interval(part)) for part in parts),
            ]
        )
    return rows


def _sentences(report: Report, most_verdicts: int, known: Collection[str] = ()) -> list[str]:
    sentences = []
    done = [setting for setting in report.settings if setting.done]
    if report.chosen and len(report.settings) > 1:
        sentences.append(f"* {report.chosen.label} is what validation chooses; the test part only reports.")
    if len(done) > 1 and any(len(setting.done) == 1 for setting in done):
        sentences.append("A setting with one seed proves nothing about the order: add seed=0,1,2,3,4.")
    if any(len(setting.done) > 1 for setting in done):
        folds = any(setting.overlap for setting in done)
        over = "the seeds and folds, widened for the images that folds share" if folds else "the seeds"
        sentences.append(f"± is the half-width of the 95 % interval (Student's t) over {over}.")
    names = short_names(report.settings, report.keys)
    sentences += sentences_on(report.verdicts, names, report.against, most_verdicts)
    sentences += _devices(report)
    sentences += _failures(report, known)
    sentences += [f"Not in the table: {folder.name}: its {RESULT} {what}." for folder, what in report.damaged.items()]
    return sentences


def _failures(report: Report, known: Collection[str]) -> list[str]:
    """Return a sentence for each reason why runs did not finish, with their names."""
    by_reason: dict[str, list[str]] = {}
    for run in report.failed:
        by_reason.setdefault(_reason(run), []).append(run.folder.name)
    sentences = []
    for reason, names in by_reason.items():
        listed = "; ".join(names[:MOST_NAMED]) + (f"; and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED))
        sentences.append(f"Not finished: {listed}: {'the reason is given above.' if reason in known else reason}")
    return sentences


def _devices(report: Report) -> list[str]:
    """Return a sentence where the runs were trained on different devices or numbers of threads, else none."""
    counts = Counter(run.record.get("device", "") for setting in report.settings for run in setting.done)
    for unknown in ("", "cpu"):  # of older records, which say nothing of threads
        counts.pop(unknown, None)
    if len(counts) < 2:
        return []
    named = [f"{device} ({count} run{'s' if count > 1 else ''})" for device, count in counts.most_common(MOST_DEVICES)]
    more = f" and {len(counts) - MOST_DEVICES} others" if len(counts) > MOST_DEVICES else ""
    return [
        f"The runs were trained on different devices or numbers of threads: {'; '.join(named)}{more}. "
        "Their seconds cannot be compared, and their accuracies differ a little for that reason alone."
    ]


def _markdown(report: Report) -> str:
    header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _cells(report)]
    sentences = _sentences(report, most_verdicts=20)
    lines = [
        f"# {report.folder.name}",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "|".join(["---"] + ["--:"] * (len(header) - 1)) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"{line.replace('*', chr(92) + '*', 1) if line.startswith('*') else line}\n" for line in sentences),
        "![Training loss and validation accuracy](curves.png)",
        "",
        "![Test accuracy](ranking.png)",
        *(["", "![Test accuracy by both settings](grid.png)"] if len(report.keys) == 2 else []),
        *(["", "![Test accuracy against weights and seconds](costs.png)"] if report.sizes > 2 else []),
    ]
    return "\n".join(lines) + "\n"
