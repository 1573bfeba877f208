"""Shared by all figures: fonts that have their characters, and their content as a file. Imports no torch."""

import io
import logging
import warnings
from collections.abc import Iterable, Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from handwriting.utils.text import shorten

log = logging.getLogger(__name__)


def fonts_for(texts: Iterable[str], warn: bool = True) -> list[str]:
    """Return font families that together have every character of the texts, as far as they are installed."""
    families = ["DejaVu Sans"]
    lacking = set("".join(texts)) - _characters(font_manager.findfont("DejaVu Sans")) - {"\n"}
    if not lacking:
        return families
    for font in font_manager.fontManager.ttflist:
        # The last-resort font has every character, as an empty box.
        if lacking and "Last Resort" not in font.name and (found := lacking & _characters(font.fname)):
            families.append(font.name)
            lacking -= found
    if lacking:  # matplotlib would warn of each character each time; this is said once, with a remedy
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
    if lacking and warn:
        log.warning("No installed font has %s: install one that has, such as Noto Sans.", " ".join(sorted(lacking)))
    return families


@cache
def _characters(font_file: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(font_file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


def shown_names(class_names: Sequence[str], glyphs: Sequence[str]) -> list[str]:
    """Return for each class its glyph if an installed font has it, else its name without text in brackets."""
    if not glyphs:
        return list(class_names)
    known = frozenset().union(*(_characters(font_manager.findfont(family)) for family in fonts_for(glyphs, warn=False)))
    return [
        glyph if glyph and set(glyph) <= known else name
        for glyph, name in zip(glyphs, shorten(class_names), strict=True)
    ]


def as_png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    return as_file(figure, "png")


def as_file(figure: Figure, kind: str, dpi: int | None = None) -> bytes:
    """Return a figure as the content of a file of this kind, png or pdf, with ``dpi`` dots per inch or its own."""
    picture = io.BytesIO()
    if dpi:
        figure.set_dpi(dpi)
    if engine := figure.get_layout_engine():
        engine.execute(figure)  # otherwise savefig draws the whole figure twice
        figure.set_layout_engine("none")
    figure.savefig(picture, format=kind, dpi="figure")
    return picture.getvalue()
