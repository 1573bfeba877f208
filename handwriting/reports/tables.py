"""A report as text: the table in the terminal, summary.csv, summary.md, differences.csv. Imports no torch."""

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

SHORTEST_LABEL = 16  # minimum characters of a label in a line; a longer label is wrapped, at its commas if possible
MOST_NAMED = 5  # failed runs that are listed with the same reason
MOST_READ = 200  # finished runs whose predictions are read for differences.csv: each file takes some milliseconds
MOST_DEVICES = 4  # devices that are listed if the runs were trained on several
# Columns for metrics that only some runs have. A narrow terminal omits the last columns; summary.md has all.
EXTRA_METRICS = {
    "test/top5": "top-5 %",
    "test_tta/acc": "test TTA %",
    "test_augmented/acc": "augmented test %",
    "train_clean/acc": "train %",
    "train_augmented/acc": "augmented train %",
}


def write_tables(report: Report) -> list[Path]:
    """Write summary.csv (fractions), summary.md (percent) and, for several seeds, differences.csv; return the paths."""
    texts = {"summary.csv": summary_frame(report).to_csv(index=False), "summary.md": _markdown(report)}
    if report.comparisons:
        texts["differences.csv"] = differences_frame(report).to_csv(index=False)
    if len(folds := out_of_fold_frame(report)):
        texts["out_of_fold.csv"] = folds.to_csv(index=False)
    for name, text in texts.items():
        write_text(report.folder / name, text)
    return [report.folder / name for name in texts]


def summary_frame(report: Report) -> "pd.DataFrame":
    """Return a row for each configuration: label, seeds, metrics as fractions with half-widths, epochs, seconds."""
    import pandas as pd

    rows, metrics, few = [], _metrics(report), _are_few(report)
    for configuration in report.configurations:
        settings = configuration.runs[0].settings
        row: dict[str, Any] = {"configuration": configuration.label} | {
            key: as_text(settings.get(key)) for key in report.keys
        }
        row["seeds"] = len(configuration.done)
        for metric in metrics:
            row[metric], row[f"{metric} ±"] = configuration.interval(metric)
        if few:
            row["test/acc ± for new images"] = configuration.for_new_images()
        row |= {key: configuration.mean(key) for key in ("epochs", "seconds", "parameters")}
        # As an integer where it is one: with early stopping, epochs may differ among the seeds.
        row |= {key: int(row[key]) for key in ("epochs", "parameters") if row[key] == row[key] // 1}
        row["not finished"] = len(configuration.runs) - len(configuration.done)
        row["reason"] = "; ".join(dict.fromkeys(_reason(run) for run in configuration.runs if run.status != "done"))
        rows.append(row)
    return pd.DataFrame(rows)


def differences_frame(report: Report) -> "pd.DataFrame":
    """Return a row for each comparison: the paired difference as a fraction, and whether it is significant."""
    import pandas as pd

    comparisons = report.comparisons
    columns = {  # built by columns: 300 configurations make 44,850 pairs
        "better": [comparison.better.label for comparison in comparisons],
        "worse": [comparison.worse.label for comparison in comparisons],
        "test/acc difference": [comparison.difference.mean for comparison in comparisons],
        "±": [comparison.difference.half_width for comparison in comparisons],
        "seeds": [comparison.difference.pairs for comparison in comparisons],
        "p": [comparison.difference.p for comparison in comparisons],
        "p (Holm)": [comparison.p for comparison in comparisons],
        "significant": [comparison.significant for comparison in comparisons],
        "detectable": [comparison.detectable for comparison in comparisons],
        f"seeds for {report.smallest:g}": [comparison.seeds_for(report.smallest) for comparison in comparisons],
    }
    if _are_few(report):
        columns["± for new images"] = [comparison.for_new_images() for comparison in comparisons]
        found = [comparison.probability() for comparison in comparisons]
        for place, name in enumerate(("P(better seed)", "P low", "P high")):
            columns[name] = [one[place] for one in found]
    return pd.DataFrame(columns)


def out_of_fold_frame(report: Report) -> "pd.DataFrame":
    """Return the predictions of the runs of data.split=kfold on their held-out images: a row for each run and image."""
    import pandas as pd

    frames = []
    for configuration in report.configurations:
        for run in configuration.done:
            if run.settings.get("data.split") == "kfold" and (held_out := run.held_out()) is not None:
                which = {
                    "configuration": configuration.label,
                    "seed": run.settings["seed"],
                    "fold": run.settings["data.fold"],
                }
                frames.append(pd.concat([pd.DataFrame(which, index=held_out.index), held_out], axis=1))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _are_few(report: Report) -> bool:
    """Return whether the predictions of all runs can be read in a short time."""
    return sum(len(configuration.done) for configuration in report.configurations) <= MOST_READ


def _metrics(report: Report) -> list[str]:
    """Return the four metrics that every run has, then all others."""
    always = ["test/acc", "val/acc", "test/loss", "val/loss"]
    found = {metric for configuration in report.configurations for run in configuration.done for metric in run.metrics}
    return [*always, *sorted(found - {*always, "train/acc", "train/loss"})]


class PipeConsole(Console):
    """A rich console that raises BrokenPipeError if the pipe is closed; rich's own exits the program."""

    def on_broken_pipe(self) -> None:
        """Raise the error again."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def show_report(report: Report, console: Console, known: Collection[str] = ()) -> OSError | None:
    """Write a report's tables and plots and print it; if its folder is not writable, print it and return the error.

    ``known`` are reasons of failures that were already printed.
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
    """Print the table, then the comparisons, the failures and the paths of the written files."""
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
        table.add_row(*(Text(cell) for cell in row))  # Text: a label such as [32,64] is not markup
    console.print(table)
    for sentence in _sentences(report, 5, known):
        console.print(Text(sentence), soft_wrap=True)
    for path in paths:
        console.print(Text(f"  {path}"), soft_wrap=True)


def _fit(rows: list[list[str]], label_width: int, width: int) -> list[list[str]]:
    """Omit the last columns if the terminal is too narrow, so that no number is cut off; wrap the labels."""
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
    extra = [
        metric
        for metric in EXTRA_METRICS
        if any(configuration.values(metric) for configuration in report.configurations)
    ]
    header = [
        "configuration",
        f"{report.repeat}s",
        "test %",
        "validation %",
        "epochs",
        "seconds",
        "parameters",
        *(EXTRA_METRICS[metric] for metric in extra),
    ]
    rows = [header]
    for configuration in report.configurations:
        if not configuration.done:
            rows.append([configuration.label, "0", *["–"] * (len(header) - 2)])
            continue
        star = " *" if configuration is report.chosen and len(report.configurations) > 1 else ""
        rows.append(
            [
                configuration.label + star,
                str(len(configuration.done)),
                _percent(configuration.interval("test/acc")),
                _percent(configuration.interval("val/acc")),
                f"{configuration.mean('epochs'):g}",
                f"{configuration.mean('seconds'):.1f}",
                f"{configuration.mean('parameters'):,.0f}",
                *(_percent(configuration.interval(metric)) for metric in extra),
            ]
        )
    return rows


def _sentences(report: Report, most_comparisons: int, known: Collection[str] = ()) -> list[str]:
    sentences = []
    done = [configuration for configuration in report.configurations if configuration.done]
    if report.chosen and len(report.configurations) > 1:
        sentences.append(
            f"* {report.chosen.label} has the best validation accuracy; the test set is not used to choose."
        )
    if len(done) > 1 and any(len(configuration.done) == 1 for configuration in done):
        sentences.append("Configurations with one seed are inconclusive (n = 1): add seed=0,1,2,3,4.")
    if any(len(configuration.done) > 1 for configuration in done):
        folds = any(configuration.overlap for configuration in done)
        over = "the seeds and folds, corrected for the training images that folds share" if folds else "the seeds"
        sentences.append(f"± is the half-width of the 95 % interval (Student's t) over {over}.")
    names = short_names(report.configurations, report.keys)
    sentences += sentences_on(report.comparisons, names, report.against, most_comparisons, report.smallest)
    sentences += report.race.sentences() if report.race else []
    sentences += _devices(report)
    sentences += _failures(report, known)
    sentences += [f"Not in the table: {folder.name}: its {RESULT} {what}." for folder, what in report.damaged.items()]
    return sentences


def _failures(report: Report, known: Collection[str]) -> list[str]:
    """Return a sentence for each reason of failures, with the names of the runs."""
    by_reason: dict[str, list[str]] = {}
    for run in report.failed:
        by_reason.setdefault(_reason(run), []).append(run.folder.name)
    sentences = []
    for reason, names in by_reason.items():
        listed = "; ".join(names[:MOST_NAMED]) + (f"; and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED))
        sentences.append(f"Not finished: {listed}: {'the reason is given above.' if reason in known else reason}")
    return sentences


def _devices(report: Report) -> list[str]:
    """Return a sentence if the runs were trained on different devices or numbers of threads, else none."""
    counts = Counter(
        run.record.get("device", "") for configuration in report.configurations for run in configuration.done
    )
    for unknown in ("", "cpu"):  # of older records, which have no number of threads
        counts.pop(unknown, None)
    if len(counts) < 2:
        return []
    named = [f"{device} ({count} run{'s' if count > 1 else ''})" for device, count in counts.most_common(MOST_DEVICES)]
    rest = f" and {len(counts) - MOST_DEVICES} others" if len(counts) > MOST_DEVICES else ""
    return [
        f"The runs were trained on different devices or numbers of threads: {'; '.join(named)}{rest}. "
        "Their times are not comparable, and this alone makes their accuracies differ slightly."
    ]


def _markdown(report: Report) -> str:
    header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _cells(report)]
    sentences = _sentences(report, most_comparisons=20)
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
        *(
            ["", "![The race: validation accuracy of each seed until a configuration dropped out](race.png)"]
            if report.race
            else []
        ),
        *(["", "![Test accuracy against parameters and training time](costs.png)"] if report.sizes > 2 else []),
    ]
    return "\n".join(lines) + "\n"
