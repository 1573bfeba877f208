"""Short names of classes and wrapped labels. Imports no torch."""

import re
import textwrap
from collections.abc import Sequence


def shorten(class_names: Sequence[str]) -> list[str]:
    """Return the names without text in brackets, such as Malay 2 for Malay (Jawi - Arabic) 2, if they stay unique."""
    short = [re.sub(r" \(.*?\)", "", name) for name in class_names]
    return short if len(set(short)) == len(short) else list(class_names)


def fold(label: str, width: int) -> str:
    """Wrap a label into lines of at most ``width`` characters, at its commas if possible."""
    lines = [""]
    for part in re.split(r"(?<=,)", label):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line.strip(), width) or [""])
