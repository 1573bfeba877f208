"""The drawing page with a model of several characters: a wide pad, the text, and boxes on the model's input."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from handwriting.data.dataset import pictures, texts
from handwriting.data.street_demo import read_street_demo
from handwriting.page.app import HINT, HINT_SEVERAL, NOTHING, PNG, draw_chart, make_page, pad_for, read_drawing
from handwriting.reader import Reader
from handwriting.runs.trust import NO_TRUST


@pytest.fixture(scope="module")
def reader(street_runs: dict[str, Path]) -> Reader:
    return Reader.load(street_runs["detector"])


def as_url(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return PNG + base64.b64encode(content.getvalue()).decode()


@pytest.mark.long
def test_the_pad_has_the_aspect_of_the_models_input(reader: Reader, digits_run: Path):
    pad = pad_for(reader)
    assert (pad["width"], pad["height"]) == (640, 256)  # of 80×32
    assert pad["called"] == "Write a number here"
    single = pad_for(Reader.load(digits_run))
    assert (single["width"], single["height"], single["called"]) == (420, 420, "Write one character here")
    assert 6 <= pad["pen"] < single["pen"] <= 40


@pytest.mark.long
def test_a_drawing_has_its_text_and_boxes_on_the_models_input(reader: Reader):
    train = read_street_demo((32, 80), 40, 40).train
    assert train.boxes is not None
    for image, number, boxes in zip(
        pictures(train.images[:5]), texts(train.labels, "0123456789"), train.boxes, strict=False
    ):
        large = Image.fromarray(image).resize((640, 256), Image.Resampling.BICUBIC)
        likeliest, seen, note = read_drawing(reader, as_url(large))
        assert likeliest is not None
        assert list(likeliest) == [number]  # which the model knows by heart
        assert 0 < likeliest[number] <= 1
        assert 'viewBox="0 0 80 32"' in seen
        assert "The 32×80 pixels that the model sees" in seen
        assert HINT_SEVERAL in note
        found = [
            list(map(float, sides))
            for sides in re.findall(r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"', seen)
        ]
        assert len(found) == len(number)
        left, top, right, bottom = boxes[: len(number)].numpy().T
        assert np.abs(np.array(found) - np.stack([left, top, right - left, bottom - top], 1)).max() < 8
        (url,) = re.findall(r'href="data:image/png;base64,([^"]+)"', seen)
        assert Image.open(io.BytesIO(base64.b64decode(url))).size == (80, 32)


def test_an_empty_drawing_and_one_without_characters_have_no_prediction(reader: Reader):
    assert read_drawing(reader, "")[0] is None
    assert HINT_SEVERAL in read_drawing(reader, None)[2]
    likeliest, seen, note = read_drawing(reader, as_url(Image.new("RGBA", (640, 256), "white")))
    assert likeliest is None
    assert "<img" in seen
    assert NOTHING in note


def test_strokes_are_dark_on_white(reader: Reader):
    drawing = Image.new("RGBA", (640, 256))  # transparent where nothing is drawn
    ImageDraw.Draw(drawing).line([(300, 40), (300, 210)], "black", 20)
    (url,) = re.findall(r'(?:href|src)="data:image/png;base64,([^"]+)"', read_drawing(reader, as_url(drawing))[1])
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(url))).convert("L"))
    assert seen[16, 37] < 60
    assert seen[16, 10] == 255


def test_the_chosen_model_decides_the_pad(street_runs: dict[str, Path], digits_run: Path):
    page = make_page({"digits": digits_run, "street": street_runs["detector"]}, NO_TRUST)
    (choose,) = [one.fn for one in page.fns.values() if getattr(one.fn, "__name__", "") == "choose"]
    (pad,) = [block for block in page.blocks.values() if getattr(block, "elem_id", "") == "pad"]
    assert pad.props["width"] == 420  # type: ignore[attr-defined]
    update, chart = choose("street")  # type: ignore[misc]
    assert (update["width"], update["height"]) == (640, 256)
    assert chart == draw_chart(Reader.load(street_runs["detector"]))
    assert chart.count("<figure>") == 10
    assert choose("digits")[0]["height"] == 420  # type: ignore[misc]
    (note,) = [block for block in page.blocks.values() if getattr(block, "elem_id", "") == "note"]
    assert HINT in str(note.value)  # type: ignore[attr-defined]
