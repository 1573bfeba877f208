"""Image files by path, folder or pattern, and standard input. Imports no torch."""

import glob
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handwriting.data.photographs import ENDINGS
from handwriting.utils.errors import UserError

MOST_FILES = 100_000
MOST_BYTES = 200 << 20  # of standard input


def find_images(places: Sequence[str]) -> tuple[list[str], list[Path | bytes]]:
    """Return the names and the sources of all images. Raises UserError if there are none or too many."""
    names: list[str] = []
    sources: list[Path | bytes] = []
    for place in places:
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
        raise UserError(f"{len(sources):,} images are more than the maximum of {MOST_FILES:,} per call: give fewer.")
    return names, sources


def check_names(names: Sequence[str]) -> None:
    """Raise UserError if two images have the same file name, without their folders."""
    (file, times), *_ = Counter(Path(name).name for name in names).most_common(1)
    if times > 1:
        raise UserError(f"{times} images are called {file}: a submission has one row for each file name.")
