"""Errors of the builder: one line on standard error, exit code 2 and no file."""

import http.client
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handwriting.data.characters import main, read_characters
from handwriting.data.omniglot import fetch

FIRST_HALF = "omniglot-py/images_background"


@pytest.fixture
def tree(data_root: Path) -> Path:
    """The folder of an alphabet of two characters, each drawn twenty times alike."""
    page = np.full((105, 105), 255, np.uint8)
    page[20:80, 40:50] = 0
    content = io.BytesIO()
    Image.fromarray(page).save(content, "PNG")
    for number in (1, 2):
        folder = data_root / FIRST_HALF / "Sanskrit" / f"character{number:02d}"
        folder.mkdir(parents=True)
        for drawer in range(1, 21):
            (folder / f"0709_{drawer:02d}.png").write_bytes(content.getvalue())
    return data_root / FIRST_HALF / "Sanskrit"


@pytest.fixture(autouse=True)
def torchvision(monkeypatch) -> Callable[..., list[str]]:
    """Replace the download: it raises an error, or creates alphabets. Returns a list to which each call is added."""

    def replace(error: Exception | None = None, *alphabets: str) -> list[str]:
        downloads = []

        def download(root: str, background: bool, download: bool) -> None:
            assert download
            print("noise")
            downloads.append("images_background" if background else "images_evaluation")
            (Path(root) / "omniglot-py").mkdir(parents=True, exist_ok=True)
            if error:
                raise error
            for alphabet in ("Latin", "Greek") if background else alphabets:
                (Path(root) / "omniglot-py" / downloads[-1] / alphabet / "character01").mkdir(parents=True)

        monkeypatch.setattr("torchvision.datasets.Omniglot", download)
        return downloads

    replace(AssertionError("a download was tried"))
    return replace


@pytest.fixture
def refused(tmp_path: Path, capsys) -> Callable[..., None]:
    """Expect exit code 2, one line that holds the words, and no file."""

    def run(alphabet: str, *words: object, train: str = "15") -> None:
        with pytest.raises(SystemExit) as stop:
            main(["--out", str(tmp_path / "built.mat"), "--alphabets", alphabet, "--train", train])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        for word in words:
            assert str(word) in line
        assert not (tmp_path / "built.mat").exists()

    return run


@pytest.mark.parametrize("train", ["0", "20", "-1"])
def test_a_set_without_images_is_refused(tree, refused, train):
    refused("Sanskrit", f"--train={train}", "from 1 to 19", train=train)


def test_a_wrong_number_is_refused_before_anything_is_downloaded(refused):
    refused("Latin", "--train=0", train="0")


def test_an_existing_file_is_not_overwritten(tree, tmp_path, capsys):
    (tmp_path / "built.mat").write_text("a year's work")
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "built.mat"), "--alphabets", "Sanskrit"])
    assert stop.value.code == 2
    assert f"{tmp_path / 'built.mat'} exists already" in capsys.readouterr().err
    assert (tmp_path / "built.mat").read_text() == "a year's work"


def test_a_folder_that_cannot_be_made_is_named(tree, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "file" / "built.mat"), "--alphabets", "Sanskrit"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line


def png_with_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-40], "damaged"),
        (lambda content: content[:60], "damaged"),
        (lambda content: content[:10], "damaged"),
        (lambda content: content[:60] + b"\xff\x00" * 8 + content[76:], "damaged"),
        (lambda content: b"404: Not Found", "not a PNG"),
        (lambda content: b"", "is empty; a PNG"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\noid x", "Git LFS pointer"),
        (lambda content: png_with_header(105, 105)[:-8], "damaged"),
        (lambda content: png_with_header(2001, 105), "2001×105"),
        (lambda content: png_with_header(12_000, 12_000), "12000×12000"),
        (lambda content: png_with_header(60_000, 60_000), ""),
    ],
)
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_damaged_drawing_is_named(tree, refused, damage, words):
    path = tree / "character02" / "0709_13.png"
    path.write_bytes(damage(path.read_bytes()))
    refused("Sanskrit", path, words)


def test_a_missing_drawing_is_named(tree, refused):
    (tree / "character02" / "0709_13.png").unlink()
    refused("Sanskrit", tree / "character02", "drawer 13")


# The last two fail: character01 and character03 are missing, and the builder tries to download them.
@pytest.mark.parametrize("name", ["character_1", "characterAA", "character", "character1", "character003"])
def test_a_folder_of_another_name_is_named(tree, refused, name):
    (tree / "character02").rename(tree / name)
    refused("Sanskrit", tree / name)


def test_an_alphabet_without_characters_is_refused(tree, refused):
    (tree.parent / "Tagalog").mkdir()
    refused("Tagalog", "Tagalog", "character01")


@pytest.mark.parametrize("alphabet", ["", ".", "Sanskrit/character01", "/", "../images_background/Sanskrit"])
def test_a_path_is_no_alphabet(tree, refused, alphabet):
    refused(alphabet, repr(alphabet), "only Sanskrit")


def test_only_what_is_missing_is_downloaded(tree, data_root, torchvision):
    downloads = torchvision(None, "Angelic")
    fetch(["Sanskrit"], data_root)
    assert downloads == []
    fetch(["Sanskrit", "Latin"], data_root)
    assert downloads == ["images_background"]


def test_an_alphabet_of_the_second_half_is_downloaded_with_both(data_root, torchvision, capsys):
    downloads = torchvision(None, "Angelic")
    fetch(["Angelic"], data_root)
    assert downloads == ["images_background", "images_evaluation"]
    where = f"Omniglot's Angelic is not in {data_root / 'omniglot-py'}"
    assert capsys.readouterr().out.splitlines() == [f"{where}: downloading {half} there" for half in downloads]


def test_an_alphabet_that_omniglot_does_not_have_is_named_with_the_nearest(data_root, torchvision, refused):
    torchvision(None, "Angelic")
    refused("Angelik", "no alphabet 'Angelik'", "only Greek, Latin, Angelic.", "Did you mean 'Angelic'?")


@pytest.mark.parametrize("alphabet", ["Sanskrt", "sanskrit"])
def test_a_misspelt_alphabet_gets_the_nearest_though_nothing_can_be_downloaded(tree, torchvision, refused, alphabet):
    torchvision(OSError("no network"))
    refused(alphabet, f"{alphabet} is not in {tree.parents[1]}", "(no network)", "Did you mean 'Sanskrit'?")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Error downloading a.zip:\nTried https://mirror, got:\n<no network>\n"), "got: <no network>)"),
        (RuntimeError(), "(RuntimeError)"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (http.client.IncompleteRead(b"half", 9_000), "IncompleteRead"),
    ],
)
def test_a_download_that_fails_names_the_folder_and_the_ways_out(data_root, torchvision, complaint, error, reason):
    downloads = torchvision(error)
    missing = "Malay_(Jawi_-_Arabic), Mkhedruli_(Georgian), N_Ko"
    with complaint(missing, "could not be downloaded", reason, data_root / FIRST_HALF, "HANDWRITING_DATA", "data=dig"):
        read_characters()
    assert downloads == ["images_background"]
    assert {path.suffix for path in data_root.iterdir()} <= {".lock"}


def test_without_network_the_command_line_ends_in_one_line(tmp_path, monkeypatch, capfd):
    from torchvision.datasets.omniglot import Omniglot

    monkeypatch.setattr("torchvision.datasets.Omniglot", Omniglot)
    monkeypatch.setattr("urllib.request._opener", None)  # which has the proxies of its first call
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HANDWRITING_DATA", str(tmp_path / "no_data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["--out", "built.mat"])
    assert stop.value.code == 2
    output, errors = capfd.readouterr()
    (line,) = errors.splitlines()
    assert "Sanskrit" in line
    assert "could not be downloaded (<urlopen error" in line
    assert f"put its folders into {tmp_path / 'no_data' / FIRST_HALF}" in line
    assert "Traceback" not in output
    assert {path.name for path in tmp_path.rglob("*")} <= {"no_data", ".omniglot-py.lock"}
