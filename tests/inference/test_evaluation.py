"""Names in the table of an evaluation."""

from handwriting.inference.evaluation import without_common


def test_names_omit_common_overrides():
    assert without_common(["a=1,model.widths=[3,4],seed=0", "a=1,model.widths=[3,5],seed=0"]) == [
        "model.widths=[3,4]",
        "model.widths=[3,5]",
    ]
    assert without_common(["a=1,b=2"]) == ["a=1,b=2"]
    assert without_common(["a=1", "a=1"]) == ["a=1", "a=1"]
