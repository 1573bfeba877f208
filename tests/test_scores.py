import io

import numpy as np
import pandas as pd

from handwriting.scores import per_class


def test_a_class_says_how_many_were_read_and_what_the_others_were_taken_for():
    counts = np.array([[3, 1, 0, 2], [0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 3]])
    table = per_class(counts, ["a 1", "a 2", "b 1", "b 2"], ["\u10d0", "", "x", "y"])
    assert list(table["images"]) == [6, 4, 0, 4]
    assert list(table["right"]) == [3, 4, 0, 3]
    assert table["acc"].tolist()[:2] == [0.5, 1.0]
    assert np.isnan(table["acc"][2])
    assert list(table["mistaken for"]) == ["b 2 y (2), a 2 (1)", "", "", "a 1 \u10d0 (1)"]
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)), keep_default_na=False)
    assert list(read["glyph"]) == ["\u10d0", "", "x", "y"]


def test_classes_without_glyphs_are_called_by_their_names():
    table = per_class(np.array([[1, 1], [0, 2]]), ["0", "1"], ())
    assert list(table["mistaken for"]) == ["1 (1)", ""]
