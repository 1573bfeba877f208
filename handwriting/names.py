"""What to call the classes in tables and figures, where there is little room. Imports no torch."""

import re
from collections.abc import Sequence


def shorten(class_names: Sequence[str]) -> list[str]:
    """Return the names without what stands in brackets: Malay 2 for Malay (Jawi - Arabic) 2, if they stay different."""
    short = [re.sub(r" \(.*?\)", "", name) for name in class_names]
    return short if len(set(short)) == len(short) else list(class_names)
