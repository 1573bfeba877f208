import logging

import pytest
from matplotlib import font_manager

from handwriting.plots import style

NOWHERE = "\U000f1234"  # private use


def test_a_font_is_found_that_has_the_characters():
    sans = style._characters(font_manager.findfont("DejaVu Sans"))
    only_there = sorted(style._characters(font_manager.findfont("STIXGeneral")) - sans)[0]
    families = style.fonts_for([f"label {only_there}"])
    assert families[0] == "DejaVu Sans"
    files = [font.fname for font in font_manager.fontManager.ttflist if font.name == families[1]]
    assert any(only_there in style._characters(file) for file in files)
    assert style.fonts_for(["plain", "é"]) == ["DejaVu Sans"]


def test_a_glyph_is_used_if_a_font_has_it_and_else_the_name_without_brackets(caplog: pytest.LogCaptureFixture):
    names = ["Mkhedruli (Georgian) 1", "Syriac (Estrangelo) 2", "N Ko 3"]
    with caplog.at_level(logging.WARNING):
        assert style.shown_names(names, ["\u10d0", NOWHERE, ""]) == ["\u10d0", "Syriac 2", "N Ko 3"]
    assert not caplog.text, "the name stands in, so nothing is missing"


def test_without_glyphs_the_names_are_unchanged():
    assert style.shown_names(["a (b) 1"], []) == ["a (b) 1"]
