"""The drawing page: a pad, the prediction beside it, and the preprocessed image."""

import base64
import html
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from handwriting.inference.predictions import boxes_in
from handwriting.reader import Reader
from handwriting.runs.trust import Trust
from handwriting.utils.errors import UserError

if TYPE_CHECKING:
    from handwriting.plots.images import Boxes

HERE = Path(__file__).parent
PAD = 420  # pixels per side of the pad for one character, and largest height of that for several
WIDE = 640  # largest width of the pad for several, in pixels
PEN = 50  # its width in pixels for models of photographs: those of street numbers then classify drawn digits best
PEN_SEVERAL = 20  # the same part of a digit that is half as high
MOST_CHARACTERS = 1_000_000  # of a drawing from the browser; one from the pad has about ten thousand
PNG = "data:image/png;base64,"
KEPT = 8  # models in memory at once
HINT = "Write one character with the mouse or a finger. It is classified while you write."
HINT_SEVERAL = "Write a number with the mouse or a finger. It is predicted while you write."
NOTHING = "No character was found. Write larger, and in the middle of the pad."


def make_page(checkpoints: Mapping[str, Path], trust: Trust) -> gr.Blocks:
    """Return the page for checkpoints by their names in the menu; the first is selected."""

    @lru_cache(KEPT)
    def reader(choice: str) -> Reader:
        loaded = Reader.load(checkpoints[choice], trust)
        loaded.read([np.eye(100)])  # warm-up: the first image takes longest
        return loaded

    def read(choice: str, drawing: str | None) -> tuple[dict[str, float] | None, str, str]:
        try:
            return read_drawing(reader(choice), drawing)
        except UserError as error:
            return None, "", _paragraph(str(error))

    def choose(choice: str) -> tuple[dict[str, object], str]:
        try:
            return gr.update(**pad_for(reader(choice))), draw_chart(reader(choice))
        except UserError:  # read reports the error
            return gr.update(), ""

    first = next(iter(checkpoints))
    pad_of_first, chart_of_first = pad_for(reader(first)), draw_chart(reader(first))
    with gr.Blocks(title="handwriting", analytics_enabled=False) as page:
        choice = gr.Dropdown(list(checkpoints), value=first, label="Model", filterable=False, elem_id="choice")
        with gr.Row():
            with gr.Column(min_width=320, elem_id="writing"):
                template, script = ((HERE / name).read_text(encoding="utf-8") for name in ("pad.html", "pad.js"))
                pad = gr.HTML("", html_template=template, js_on_load=script, elem_id="pad", **pad_of_first)
            with gr.Column(min_width=280):
                note = gr.HTML(_paragraph(hint(reader(first))), elem_id="note")
                prediction = gr.Label(num_top_classes=5, label="Prediction", elem_id="prediction")
            with gr.Column(min_width=200):
                seen = gr.HTML("", elem_id="seen")
        with gr.Accordion("All characters, as a reference"):
            chart = gr.HTML(chart_of_first, elem_id="chart")
        outputs = [prediction, seen, note]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        pad.input(read, [choice, pad], outputs, trigger_mode="always_last", queue=False, **quiet)
        choice.input(choose, choice, [pad, chart], **quiet).then(read, [choice, pad], outputs, **quiet)
    return page


def read_drawing(reader: Reader, drawing: str | None) -> tuple[dict[str, float] | None, str, str]:
    """Return the five most probable classes of a drawing, its preprocessed image as HTML, and a note as HTML.

    Of several characters, return their text, and the image with their boxes. The drawing is a PNG as a data URL, or
    empty. Raises UserError for anything else.
    """
    if not drawing:
        return None, "", _paragraph(hint(reader))
    if not isinstance(drawing, str) or len(drawing) > MOST_CHARACTERS or not drawing.startswith(PNG):
        raise UserError(f"The drawing is not a PNG of at most {MOST_CHARACTERS:,} characters.")
    try:
        content = base64.b64decode(drawing.removeprefix(PNG), validate=True)
    except ValueError as error:
        raise UserError("The drawing is damaged.") from error
    (prediction,) = reader.read([reader.open(content, "The drawing")])
    if prediction.preprocessed is None:
        return None, "", _paragraph(prediction.error)
    height, width = prediction.preprocessed.image.shape[:2]
    picture = _picture(prediction.preprocessed.image, boxes_in(prediction, prediction.preprocessed, (height, width)))
    seen = picture + _paragraph(f"The {height}×{width} pixels that the model sees")
    if prediction.characters is None:
        return dict(prediction.likeliest), seen, _paragraph(hint(reader))
    if not prediction.characters:
        return None, seen, _paragraph(NOTHING)
    return {prediction.glyph or prediction.name: prediction.probability}, seen, _paragraph(hint(reader))


def hint(reader: Reader) -> str:
    """Return what to do, for one character or several."""
    return HINT_SEVERAL if reader.trained.is_sequence else HINT


def pad_for(reader: Reader) -> dict[str, Any]:
    """Return width and height of the pad in pixels, the width of its pen, and what is written there.

    For several characters it has the aspect of the model's input.
    """
    if not reader.trained.is_sequence:
        return {"width": PAD, "height": PAD, "pen": pen_width(reader), "called": "Write one character here"}
    height, width = reader.trained.image_size
    scale = min(WIDE / width, PAD / height)
    size = {"width": round(scale * width), "height": round(scale * height)}
    return size | {"pen": pen_width(reader), "called": "Write a number here"}


def pen_width(reader: Reader) -> int:
    """Return the pen width on the pad in pixels: the stroke width of the training images, scaled to the pad.

    It is a little thinner, since preprocessing thickens thin strokes and never makes thick ones thinner.
    """
    if reader.trained.photographs:
        return PEN_SEVERAL if reader.trained.is_sequence else PEN
    foreground = reader.trained.foreground
    return int(np.clip(round(0.7 * PAD * foreground["stroke"] / max(reader.trained.image_size)), 6, 40))


def draw_chart(reader: Reader) -> str:
    """Return all classes of a model as HTML: their names, and an example image of each if the checkpoint has them."""
    trained = reader.trained
    pictures = [_picture(255 - image) for image in trained.examples] or [""] * len(trained.class_names)
    glyphs = [f"<bdi>{html.escape(glyph)}</bdi><br>" for glyph in trained.glyphs] or [""] * len(trained.class_names)
    figures = [
        f"<figure>{picture}<figcaption>{glyph}{html.escape(name)}</figcaption></figure>"
        for picture, glyph, name in zip(pictures, glyphs, reader.short_names, strict=True)
    ]
    return f"<div>{''.join(figures)}</div>"


def _picture(image: np.ndarray, boxes: "Boxes" = ()) -> str:
    """Return a uint8 image (H, W) or (H, W, 3) as HTML, with its boxes, without a file."""
    content, (height, width) = io.BytesIO(), image.shape[:2]
    Image.fromarray(image).save(content, "PNG")
    address = f"{PNG}{base64.b64encode(content.getvalue()).decode()}"
    if not len(boxes):
        return f'<img alt="" src="{address}">'
    frames = "".join(
        f'<rect x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}" height="{bottom - top:.2f}" />'
        for left, top, right, bottom in boxes
    )
    inside = f'<image href="{address}" width="{width}" height="{height}" />{frames}'
    return f'<svg viewBox="0 0 {width} {height}">{inside}</svg>'


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
