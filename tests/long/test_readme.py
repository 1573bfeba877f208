"""Every command of the README runs in a fresh clone, in its order, on small data sets of the real formats."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from handwriting.data.characters import read_characters
from handwriting.data.dataset import END, pictures
from handwriting.data.digits import read_digits
from handwriting.data.mnist import read_mnist
from handwriting.data.street_demo import read_street_demo

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Commands that are not run, by a substring, and why.
LEFT_OUT = {
    "make demo": "it installs the package; its command is run as well",
    "make test": "it runs this suite",
    "submitit_slurm": "it needs SLURM: tests/cluster starts one",
    "logger=mlflow": "it needs a large extra: tests/training/test_loggers.py runs it where that is installed",
}
# Changes that shorten a command, by a substring: all that match are applied, in this order.
REPLACED = {
    "seed=0,1,2,3,4": "seed=0,1",
    "seed=0,1,2": "seed=0",
    "data.fold=0,1,2,3,4": "data.fold=0,1",
    "n_jobs=4": "n_jobs=2",
    "model.width=8,32": "model.width=8",
    "devices=4": "devices=2",
    "outputs/street/model=detector": "outputs/street/data.val_fraction=0.3,model=detector,trainer.max_epochs=1",
    "trainer.max_epochs=100": "trainer.max_epochs=3",
}
SMALL_NET = "model.branches=1 model.shared=0 model.widths=[8,16,32]"
ADDED = {
    "hydra/sweeper=race": "race.max_seeds=2 trainer.max_epochs=1",
    "experiment=street": "trainer.max_epochs=1 data.val_fraction=0.3",  # numbers of one digit are rare
    "data=street_demo": "data.images=100",
    "data=svhn": "trainer.max_epochs=1",
    "data=fashion_mnist": "trainer.max_epochs=1",
    "experiment=optimizers": "trainer.max_epochs=1",
    "experiment=mnist_best": "trainer.max_epochs=2",
    "experiment=characters": f"trainer.max_epochs=1 augment.clean_epochs=0 {SMALL_NET}",
    "experiment=search": "hydra.sweeper.n_trials=3 data.limit=150",
    "data=characters augment": "trainer.max_epochs=1 data.limit=200 data.notebook_form=false",
    "data.split=kfold": "trainer.max_epochs=2 data.limit=300",
}
# Programs that run until they are stopped, by a substring of the command, and the option for their port.
SERVERS = {"handwriting.draw": "--port={port}", "tensorboard": "--host=127.0.0.1 --port={port}"}


def commands(text: str) -> list[str]:
    """The lines of the shell blocks, whole and without their comments."""
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    bare = [re.split(r"(?:^|\s)#", line)[0].removeprefix("$ ").strip() for line in lines]
    return [line for line in bare if line]


def shortened(command: str) -> str:
    for old, new in REPLACED.items():
        command = command.replace(old, new)
    return " ".join([command, *(more for part, more in ADDED.items() if re.search(rf"{part}(?![\w])", command))])


def demo() -> str:
    """What `make demo` runs once the package is installed."""
    (recipe,) = re.findall(r"^demo:.*\n\t(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return recipe.replace("$(BIN)/", "")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = b"".join(number.to_bytes(4, "big") for number in (0x800 + array.ndim, *array.shape))
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_data(folder: Path, real: Path | None) -> None:
    """Write small data sets where the package looks for MNIST, the characters and Omniglot.

    They are subsets of the real ones if these are present; else MNIST is made from the bundled digits, and the
    characters from noise.
    """
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    whole = read_mnist(real) if real and (real / "MNIST" / "raw").is_dir() else read_digits()
    for name, part, most in (("train", whole.train, 250), ("t10k", whole.test, 100)):
        write_idx(raw / f"{name}-images-idx3-ubyte", part.images[:most, 0].numpy())
        write_idx(raw / f"{name}-labels-idx1-ubyte", part.labels[:most].numpy())
    rng = np.random.default_rng(0)
    pages = np.full((200, 6, 28, 28), 255, np.uint8)
    pages[:, :, 8:20, 8:20] = rng.integers(0, 2, (200, 1, 12, 12), np.uint8) * 255
    pages[:, :, 8:20, 8:20] ^= rng.integers(0, 60, (200, 6, 12, 12), np.uint8)
    if real and (file := real / "characters" / "characters.mat").is_file():
        characters = read_characters(file)
        train, test = (part.images[part.labels.argsort(stable=True)] for part in (characters.train, characters.test))
        pages = 255 - np.concatenate([train.view(200, -1, 28, 28)[:, :5], test.view(200, -1, 28, 28)[:, :1]], 1)
    shutil.copytree(raw, folder / "FashionMNIST" / "raw")
    (folder / "characters").mkdir()
    scipy.io.savemat(folder / "characters" / "characters.mat", {"train": pages[:, :5], "test": pages[:, 5:]})
    for number in (1, 2, 3):
        of_class = folder / "omniglot-py" / "images_background" / "Greek" / f"character{number:02d}"
        of_class.mkdir(parents=True)
        for drawer in range(1, 21):
            strokes = np.full((105, 105), 255, np.uint8)
            strokes[20:80, 20 * number + drawer // 4 : 20 * number + drawer // 4 + 4] = 0
            Image.fromarray(strokes).save(of_class / f"{number:04d}_{drawer:02d}.png")


def write_street_numbers(folder: Path) -> None:
    """Write composed house numbers in the layout of the Tianchi contest, and cropped digits in that of SVHN."""
    whole = read_street_demo((32, 80), images=60, test_images=30)
    for name, part in (("mchar_train", whole.train), ("mchar_val", whole.test)):
        (folder / "street" / name).mkdir(parents=True)
        labels = {}
        for number, image in enumerate(pictures(part.images)):
            Image.fromarray(image).save(folder / "street" / name / f"{number:06d}.png")
            some = part.labels[number] != END
            assert part.boxes is not None
            left, top, right, bottom = part.boxes[number, some].round().int().T.tolist()
            sides = {"left": left, "top": top, "width": [b - a for a, b in zip(left, right, strict=True)]}
            sides["height"] = [b - a for a, b in zip(top, bottom, strict=True)]
            labels[f"{number:06d}.png"] = {**sides, "label": part.labels[number, some].tolist()}
        (folder / "street" / f"{name}.json").write_text(json.dumps(labels))
    (folder / "SVHN").mkdir()
    digits = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 100), np.uint8)
    for name in ("train", "test"):
        scipy.io.savemat(folder / "SVHN" / f"{name}_32x32.mat", {"X": digits, "y": np.arange(100)[:, None] % 10 + 1})


def write_own_data(folder: Path) -> None:
    """Write the data sets that the README uses as the user's own, from the bundled digits."""
    digits = read_digits()
    for number, (image, label) in enumerate(zip(digits.train.images[:200, 0], digits.train.labels[:200], strict=True)):
        of_class = folder / "my_images" / str(int(label))
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(of_class / f"{number}.png")
    images, labels = digits.train.images[:200, 0].numpy(), digits.train.labels[:200].numpy()
    np.savez(folder / "my_images.npz", x_train=images, y_train=labels)
    (folder / "kaggle").mkdir()
    pixels = pd.DataFrame(images.reshape(200, -1)).add_prefix("pixel")
    pixels.to_csv(folder / "kaggle" / "test.csv", index=False)
    pixels.insert(0, "label", labels)
    pixels.to_csv(folder / "kaggle" / "train.csv", index=False)


def write_user_files(folder: Path) -> None:
    """Write the image files that the README uses as the user's own."""
    write_own_data(folder)
    for place in ("photographs", "mchar_test_a"):
        (folder / place).mkdir()
        for number, image in enumerate(pictures(read_street_demo((48, 120), images=3, test_images=3).test.images)):
            Image.fromarray(image).save(folder / place / f"{number:06d}.png")
    (folder / "scans").mkdir()
    large = np.kron(255 - read_digits().test.images[:4, 0].numpy(), np.ones((1, 5, 5), np.uint8))
    for name, image in zip(("scans/1.png", "scans/2.png", "seven.png", "page.jpg"), large, strict=True):
        Image.fromarray(image).save(folder / name)
    digits = read_digits()
    for split, images in (("train", digits.train), ("test", digits.test)):
        for label, letter in enumerate("ABC"):
            of_class = folder / "letters" / split / letter
            of_class.mkdir(parents=True)
            for number, image in enumerate(images.images[images.labels == label][:20, 0].numpy()):
                Image.fromarray(255 - image).save(of_class / f"{number}.png")


def blocks(text: str) -> list[tuple[str, str]]:
    """The kind and the content of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def named_files(text: str) -> dict[str, str]:
    """The files that the README tells its reader to write: blocks that begin with a comment of its path."""
    found = [(re.match(r"# (\S+\.\w+)\n", content), content) for _, content in blocks(text)]
    return {name[1]: content for name, content in found if name}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no clone of the repository")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


@pytest.fixture
def environment(clone: Path, tmp_path: Path) -> dict[str, str]:
    real = os.environ.get("HANDWRITING_DATA")
    write_data(tmp_path / "data", Path(real).expanduser() if real else None)
    write_street_numbers(tmp_path / "data")
    closed = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")} | {"no_proxy": "127.0.0.1"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    more = {"PATH": path, "PYTHONPATH": str(clone), "HANDWRITING_DATA": str(tmp_path / "data"), "COLUMNS": "120"}
    return os.environ | closed | more


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command of the README; return what went wrong, or nothing."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    good = done.returncode == 0 and "Traceback" not in done.stderr
    return "" if good else f"{command}\n  exit code {done.returncode}: {done.stderr.strip()[-1500:]}"


def serve(command: str, option: str, folder: Path, environment: dict[str, str]) -> str:
    """Start a server, request its page and stop it; return what went wrong, or nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"exec {command} {option.format(port=port)}"
    process = subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(240):
            try:
                with opener.open(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                    return "" if answer.status == 200 else f"{command}\n  answers {answer.status}"
            except OSError:
                time.sleep(0.5)
            if process.poll() is not None:
                break
        return f"{command}\n  does not answer: {process.stderr.read() if process.poll() is not None else ''}"  # type: ignore[union-attr]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()


def test_every_command_of_the_readme_runs_in_a_fresh_clone(clone: Path, environment: dict[str, str]):
    write_user_files(clone)
    for name, content in named_files(README).items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(content, encoding="utf-8")
    wrong = [run(demo(), clone, environment)]
    for command in commands(README):
        if any(part in command for part in LEFT_OUT):
            continue
        begun = time.monotonic()
        server = next((option for part, option in SERVERS.items() if part in command), None)
        if server:
            wrong.append(serve(command, server, clone, environment))
        else:
            wrong.append(run(shortened(command), clone, environment))
        print(f"{time.monotonic() - begun:5.1f} s  {wrong[-1] or shortened(command)}", flush=True)
    for kind, block in blocks(README):
        if kind == "python" and block not in named_files(README).values():
            (clone / "block.py").write_text(block, encoding="utf-8")
            wrong.append(run("python block.py", clone, environment))
    assert not any(wrong), "\n\n".join(filter(None, wrong))


def test_the_readme_has_commands_and_each_row_of_the_table_applies_to_one():
    found = commands(README)
    assert len(found) > 10
    for part in (*LEFT_OUT, *SERVERS):
        assert any(part in command for command in found), f"{part} is in no command of the README"
    assert len(named_files(README)) == 5
    assert commands("```sh\na 'b' \\\n  c=d   # why\n# only\n```\n```python\nx\n```\n") == ["a 'b'    c=d"]
    assert shortened("x seed=0,1,2,3,4") == "x seed=0,1"
    assert shortened("x experiment=mnist_fast") == "x experiment=mnist_fast"
