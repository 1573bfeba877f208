"""The drawing page: it classifies drawings, refuses other input, and is reachable from this machine only."""

import base64
import contextlib
import http.client
import io
import json
import math
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageDraw

from handwriting.data.digits import read_digits
from handwriting.draw import main
from handwriting.page.app import PNG, draw_chart, make_page, pen_width, read_drawing
from handwriting.page.checkpoints import gather
from handwriting.page.server import MOST_BYTES
from handwriting.reader import Reader
from handwriting.runs.trust import NO_TRUST
from handwriting.utils.errors import UserError

Serve = Callable[..., contextlib.AbstractContextManager[tuple[str, subprocess.Popen[str]]]]
# Logs the connections of the page's process and the files that it opens for writing.
WATCH = """
import os, sys
out = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        os.write(out, f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}\\n".encode())
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        os.write(out, f"write {arguments[0]}\\n".encode())
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def reader(digits_run: Path) -> Reader:
    return Reader.load(digits_run)


def drawing(*points: tuple[float, float], width: int = 22) -> str:
    """A drawing as the pad sends it: strokes on white, as a data URL."""
    image = Image.new("RGBA", (420, 420), "white")
    ImageDraw.Draw(image).line(points, "black", width, joint="curve")
    return as_url(image)


def as_url(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return PNG + base64.b64encode(content.getvalue()).decode()


CIRCLE = [(210 + 90 * math.sin(turn / 10 * math.pi), 210 - 140 * math.cos(turn / 10 * math.pi)) for turn in range(21)]
ZERO = drawing(*CIRCLE)


@pytest.mark.long
def test_a_drawing_is_classified_and_its_preprocessed_image_is_displayed(reader: Reader):
    likeliest, seen, note = read_drawing(reader, ZERO)
    assert likeliest is not None
    assert max(likeliest, key=likeliest.__getitem__) == "0"
    assert len(likeliest) == 5
    assert "28×28 pixels" in seen
    assert "while you write" in note
    (url,) = re.findall(r'src="data:image/png;base64,([^"]+)"', seen)
    assert Image.open(io.BytesIO(base64.b64decode(url))).size == (28, 28)


@pytest.mark.long
def test_an_empty_drawing_has_no_prediction(reader: Reader):
    for empty in ("", None):
        assert read_drawing(reader, empty) == (None, "", read_drawing(reader, None)[2])
    likeliest, seen, note = read_drawing(reader, as_url(Image.new("RGBA", (420, 420), "white")))
    assert (likeliest, seen) == (None, "")
    assert "no writing was found" in note


@pytest.mark.parametrize("side", [28, 420], ids=["the model's size", "the pad's size"])
def test_blank_drawings_and_white_strokes_are_recognised_at_every_size(reader: Reader, side: int):
    for colour in ("white", "#777", (255, 255, 255, 0)):
        likeliest, seen, note = read_drawing(reader, as_url(Image.new("RGBA", (side, side), colour)))
        assert (likeliest, seen) == (None, "")
        assert "no writing was found" in note
    large = Image.new("L", (420, 420))
    ImageDraw.Draw(large).line(CIRCLE, 255, 40, joint="curve")
    alpha = large.resize((side, side), Image.Resampling.BOX)
    for colour in ("white", "black"):
        strokes = Image.new("RGBA", (side, side), colour)
        strokes.putalpha(alpha)
        likeliest, _, _ = read_drawing(reader, as_url(strokes))
        assert likeliest is not None
        assert max(likeliest, key=likeliest.__getitem__) == "0"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("http://127.0.0.1/a.png", "not a PNG"),
        (PNG + "A" * 1_000_001, "not a PNG"),
        (PNG + "AAA", "damaged"),
        (PNG + base64.b64encode(b"GIF89a").decode(), "The drawing is not an image"),
        (ZERO[:-400], "The drawing is damaged"),
        ([1, 2], "not a PNG"),
    ],
)
def test_other_input_than_a_drawing_is_refused(reader: Reader, sent: str, said: str):
    with pytest.raises(UserError, match=said):
        read_drawing(reader, sent)


def test_the_chart_has_each_class_and_escapes_html(reader: Reader):
    chart = draw_chart(reader)
    assert chart.count("<figure>") == chart.count("<img") == 10
    names = ("<script>alert(1)</script>", *reader.trained.class_names[1:])
    trained = replace(
        reader.trained, class_names=names, glyphs=tuple("ءبجدهوزحط<"), examples=reader.trained.examples[:0]
    )
    chart = draw_chart(Reader(trained))
    assert "<script" not in chart
    assert "&lt;script&gt;" in chart
    assert "<img" not in chart
    assert chart.count("<bdi>") == 10


def test_a_checkpoint_carries_a_typical_image_of_each_class(reader: Reader):
    data = read_digits()
    for label, example in enumerate(reader.trained.examples):
        of_class = data.train.images[data.train.labels == label, 0].numpy()
        assert (of_class == example).all((1, 2)).any()


def test_the_pen_has_the_stroke_width_of_the_training_images(reader: Reader):
    widths = [
        pen_width(Reader(replace(reader.trained, foreground={"size": 20.0, "stroke": stroke})))
        for stroke in (1.5, 3.0, 99.0)
    ]
    assert widths == [16, 32, 40]


def test_all_finished_runs_can_be_selected(digits_run: Path, tmp_path: Path, make_run: Callable[..., Path]):
    outputs = digits_run.parents[1]
    make_run(tmp_path / "other", status="failed")
    assert gather(None, outputs=outputs) == {"digits/trainer.max_epochs=4": digits_run / "checkpoints" / "best.ckpt"}
    assert list(gather(digits_run, outputs=outputs)) == ["digits/trainer.max_epochs=4"]  # and not twice
    file = tmp_path / "net.ckpt"
    file.write_bytes((digits_run / "checkpoints" / "best.ckpt").read_bytes())
    assert list(gather(file, outputs=outputs)) == [str(file), "digits/trainer.max_epochs=4"]
    with pytest.raises(UserError, match="has no finished run: train one"):
        gather(None, outputs=tmp_path / "none")


def test_only_runs_in_outputs_are_listed_and_damaged_ones_are_reported(
    digits_run: Path, tmp_path: Path, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    content = (digits_run / "checkpoints" / "best.ckpt").read_bytes()
    outputs, found = tmp_path / "outputs", {}
    for name, damage in (("a", content[:1000]), ("b", content), ("c", content[:-5000] + b"x" * 5000), ("d", content)):
        run = make_run(outputs / "study", f"name={name}")
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "best.ckpt").write_bytes(damage)
        found[name] = run / "checkpoints" / "best.ckpt"
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 255  # one byte of the weights
    found["c"].write_bytes(damaged)
    for stray in (".gitkeep", "multirun.yaml", "study.db", ".DS_Store", "net.ckpt"):
        (outputs / stray).write_bytes(content if stray == "net.ckpt" else b"")
    for stray in (".ipynb_checkpoints", ".hidden", "empty"):
        (outputs / stray).mkdir()
    assert gather(None, outputs=outputs) == {f"study/name={name}": found[name] for name in ("b", "d")}
    errors = capsys.readouterr().err.splitlines()
    assert [f"name={name}/" in line for name, line in zip("ac", errors, strict=True)] == [True, True]
    assert all(line.endswith("cannot be read as a checkpoint. It is omitted.") for line in errors)
    with pytest.raises(UserError, match=r"name=c.* is damaged"):  # given explicitly: an error, not an omission
        gather(found["c"], outputs=outputs)
    (found["b"].parent / "cycle1.ckpt").write_bytes(content)
    first = next(iter(gather(found["b"].parent / "cycle1.ckpt", outputs=outputs)))
    assert first == "study/name=b/checkpoints/cycle1.ckpt"
    for name in "bd":
        found[name].write_bytes(b"")
    with pytest.raises(UserError, match=r"name=a.* is damaged"):
        gather(None, outputs=outputs)


def test_the_page_has_a_menu_of_its_checkpoints(digits_run: Path):
    page = make_page({"one": digits_run, "other": digits_run}, NO_TRUST)
    assert page.analytics_enabled is False
    (choice,) = [block for block in page.blocks.values() if getattr(block, "elem_id", "") == "choice"]
    assert [name for name, _ in choice.choices] == ["one", "other"]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def page(digits_run: Path, page_of: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a page, and the log of its connections and files."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(WATCH)
    watched = folder / "watched.txt"
    environment = {"PYTHONPATH": str(folder), "WATCHED": str(watched), "TMPDIR": str(folder)}
    with page_of(digits_run.parents[2], **environment) as (address, process):
        yield address, watched
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert [path.name for path in folder.iterdir() if path.is_dir()] in ([], ["__pycache__"])  # no files are left


def ask(address: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, body, headers, encode_chunked=not isinstance(body, (bytes, type(None))))  # type: ignore[arg-type]
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace"), {k.lower(): v for k, v in answer.getheaders()}


def events(address: str) -> dict[str, tuple[int, str]]:
    """The page's event for a prediction: its number and the prefix of its address."""
    config = json.loads(ask(address, "GET", "/config")[1])
    return {"read": (config["dependencies"][0]["id"], config["api_prefix"])}


def predict_by_page(address: str, sent: object, choice: str = "digits/trainer.max_epochs=4") -> tuple[int, str]:
    number, prefix = events(address)["read"]
    body = json.dumps({"data": [choice, sent], "fn_index": number, "session_hash": "test"}).encode()
    return ask(address, "POST", f"{prefix}/run/predict", body, **{"Content-Type": "application/json"})[:2]


@pytest.mark.long
def test_the_served_page_predicts_and_makes_no_outside_connection(page: tuple[str, Path]):
    address, watched = page
    status, text, headers = ask(address, "GET", "/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    status, text = predict_by_page(address, ZERO)
    assert status == 200
    assert json.loads(text)["data"][0]["label"] == "0"
    status, text = predict_by_page(address, "file:///etc/passwd")
    assert "not a PNG" in json.loads(text)["data"][2]
    status, text = predict_by_page(address, ZERO, choice="/etc/passwd")
    assert status != 200
    assert "not in the list of choices" in text
    lines = watched.read_text().splitlines()
    reached = {line for line in lines if line.startswith("socket.") and "127.0.0.1" not in line and "None" not in line}
    assert not {line for line in reached if "localhost" not in line}
    written = {line.removeprefix("write ") for line in lines if line.startswith("write ")}
    outside = {path for path in written if not path.startswith((str(watched.parent), "/dev/")) and not path.isdigit()}
    assert not {path for path in outside if "__pycache__" not in path and "matplotlib" not in path}


@pytest.mark.long
def test_a_large_body_and_files_are_refused(page: tuple[str, Path]):
    address, _ = page
    prefix = events(address)["read"][1]
    large = b"x" * (MOST_BYTES + 1)
    status, text, _ = ask(address, "POST", f"{prefix}/run/predict", large)
    assert (status, text) == (413, f"At most {MOST_BYTES:,} bytes are accepted.")
    with contextlib.suppress(
        ConnectionError, http.client.HTTPException
    ):  # without a content-length: the connection is closed
        assert ask(address, "POST", f"{prefix}/run/predict", (large for _ in range(3)))[0] >= 400
    status, text, _ = ask(
        address, "POST", f"{prefix}/upload", b"--x--", **{"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert (status, text) == (403, "No files are accepted.")
    assert predict_by_page(address, ZERO)[0] == 200  # and it still predicts


def test_the_page_is_reachable_from_this_machine_only(page: tuple[str, Path]):
    port = urlsplit(page[0]).port
    assert port is not None
    with pytest.raises(ConnectionRefusedError):  # a server on all addresses would answer here too
        socket.create_connection(("127.0.0.2", port), 5)


def test_bad_input_is_one_sentence_and_code_2(
    tmp_path: Path, digits_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, said in (
            ([], "has no finished run"),
            (["none"], "neither a checkpoint nor a folder"),
            ([str(digits_run), "--port=0"], "--port=0 must be a whole number from 1 to 65535"),
            ([str(digits_run), f"--port={port}"], f"Port {port} of 127.0.0.1 cannot be used"),
        ):
            with pytest.raises(SystemExit) as stop:
                main(arguments)
            assert stop.value.code == 2
            errors = capsys.readouterr().err.splitlines()
            assert len(errors) == 1
            assert said in errors[0]
