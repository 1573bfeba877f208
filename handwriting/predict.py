"""python -m handwriting.predict CHECKPOINT IMAGE …: what is written in image files."""

import argparse
import glob
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from handwriting.utils.errors import UserError, check_whole, exit_on_bad_input
from handwriting.utils.files import write_bytes, write_text
from handwriting.utils.hardware import use_machine

if TYPE_CHECKING:
    from handwriting.reader import Reading

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}
MOST_FILES = 100_000
MOST_BYTES = 200 << 20  # of standard input
MOST_DRAWN = 64


def main(arguments: list[str] | None = None) -> None:
    """Classify image files; exit code 1 when some of them could not be read, 2 for other bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.predict",
        description="Read what is written in image files, one character each: scans, or photographs of paper.",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, as in outputs/mnist/optim=adam, or a checkpoint")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, a pattern ('*.png'), - for stdin")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table with all five likeliest readings")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw what the net saw and read (.png or .pdf)")
    parser.add_argument("--steps", type=Path, metavar="FILE", help="draw what each step made of the images")
    parser.add_argument("--views", type=int, default=1, metavar="N", help="read the mean of N augmented views of each")
    parser.add_argument("--augment", default="", metavar="NAME", help="made by affine, nudge …, and not as in the run")
    with exit_on_bad_input():
        failed = predict(parser.parse_args(arguments))
    sys.exit(1 if failed else 0)


def predict(asked: argparse.Namespace) -> int:
    """Classify what was asked for, write and print it, and return how many images could not be read."""
    for figure in (asked.figure, asked.steps):
        if figure and figure.suffix not in (".png", ".pdf"):
            raise UserError(f"{figure} must end in .png or .pdf.")
    check_whole("--views", asked.views, at_least=1, at_most=1000)
    names, sources = _collect(asked.images)
    use_machine()
    from handwriting.reader import Reader

    drawn = MOST_DRAWN if asked.steps else 0
    readings = Reader.load(asked.checkpoint).read(sources, asked.views, asked.augment, steps=drawn)
    rows = [_row(name, reading) for name, reading in zip(names, readings, strict=True)]
    if asked.json:
        write_text(asked.json, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    if asked.csv:
        import pandas as pd

        table = pd.DataFrame([{key: value for key, value in row.items() if key != "likeliest"} for row in rows])
        write_text(asked.csv, table.to_csv(index=False))
    try:
        _draw(asked, names, readings)
    finally:
        _print(names, readings)
    return sum(bool(reading.error) for reading in readings)


def _collect(asked: Sequence[str]) -> tuple[list[str], list[Path | bytes]]:
    """Return the names and the sources of all images asked for; UserError when there is none or there are too many."""
    names: list[str] = []
    sources: list[Path | bytes] = []
    for place in asked:
        if place == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise UserError(f"standard input is larger than {MOST_BYTES >> 20} MiB.")
            found: list[Any] = [content]
        elif Path(place).is_dir():
            found = sorted(path for path in Path(place).iterdir() if path.suffix.lower() in ENDINGS)
            if not found:
                raise UserError(f"{place} holds no images ({', '.join(sorted(ENDINGS))}).")
        elif not Path(place).exists() and glob.has_magic(place):
            found = sorted(Path(path) for path in glob.glob(place, recursive=True))  # noqa: PTH207
            if not found:
                raise UserError(f"No file matches {place}.")
        else:
            found = [Path(place)]
        sources += found
        names += ["standard input" if isinstance(one, bytes) else str(one) for one in found]
    if len(sources) > MOST_FILES:
        raise UserError(f"{len(sources):,} images are more than the {MOST_FILES:,} that one call reads: give a part.")
    return names, sources


def _row(name: str, reading: "Reading") -> dict[str, Any]:
    if reading.error:
        return {"file": name, "reading": "", "glyph": "", "probability": None, "likeliest": [], "error": reading.error}
    likeliest = [{"reading": called, "probability": round(value, 6)} for called, value in reading.likeliest]
    said = {"reading": reading.name, "glyph": reading.glyph, "probability": round(reading.probability, 6)}
    return {"file": name, **said, "likeliest": likeliest, "error": ""}


def _print(names: Sequence[str], readings: "Sequence[Reading]") -> None:
    table = Table(box=None)
    table.add_column("file", overflow="fold")
    for head in ("reading", "probability", "then"):
        table.add_column(head, justify="right" if head == "probability" else "left")
    for name, reading in zip(names, readings, strict=True):
        if reading.error:
            table.add_row(name, f"not read: {reading.error.removeprefix(name).strip()}", "", "")
        else:
            (first, sure), *others = reading.likeliest
            after = ", ".join(f"{called} {value:.1%}" for called, value in others[:2] if value >= 0.001)
            table.add_row(name, first, f"{sure:.1%}", after)
    Console(highlight=False).print(table)


def _draw(asked: argparse.Namespace, names: Sequence[str], readings: "Sequence[Reading]") -> None:
    if not (asked.figure or asked.steps):
        return
    from handwriting.plots.images import draw_readings, draw_steps
    from handwriting.plots.style import as_file

    read = [(Path(name).name, one, one.framed) for name, one in zip(names, readings, strict=True) if one.framed]
    read = read[:MOST_DRAWN]
    if not read:
        raise UserError("No image could be read: there is nothing to draw.")
    if asked.figure:
        import numpy as np

        shown = [reading.glyph or reading.name for _, reading, _ in read]
        images = np.stack([framed.image for *_, framed in read])
        sure = [reading.probability for _, reading, _ in read]
        figure = draw_readings(images, [""] * len(read), shown, sure, "What the net saw, and what it read")
        write_bytes(asked.figure, as_file(figure, asked.figure.suffix[1:]))
    if asked.steps:
        rows = {
            f"{name}: {reading.glyph or reading.name} {reading.probability:.1%}": {**framed.steps, "seen": framed.image}
            for name, reading, framed in read
        }
        write_bytes(asked.steps, as_file(draw_steps(rows), asked.steps.suffix[1:]))


if __name__ == "__main__":
    main()
