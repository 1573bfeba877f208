"""Shared fixtures: the command line, offline and on one thread; runs without training; a trained run."""

import base64
import contextlib
import copy
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from hydra._internal.config_repository import ConfigRepository

from handwriting.run import main as run_main
from handwriting.runs.config import CONF
from handwriting.sweeps.progress import PROGRESS, Progress

if TYPE_CHECKING:  # torch
    from handwriting.data.dataset import HandwritingSet

ROOT = Path(__file__).resolve().parents[1]

# Before torch is imported: two threads on a busy core wait for each other, and many tests run in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Command = Callable[..., subprocess.CompletedProcess[str]]
WHITE_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)  # a PNG
# What draws the figures of a run and of a report.
DRAWN = [f"handwriting.training.tensorboard.draw_{name}" for name in ("confusion", "gallery", "variants")]
DRAWN += [f"handwriting.plots.runs.draw_{name}" for name in ("costs", "curves", "grid", "race", "ranking", "search")]


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder for temporary files that all of pytest's processes share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def configs_parsed_once() -> Iterator[None]:
    """Let Hydra parse each file of conf/ once for all configs composed in this process: a third of the time of each."""
    load, parsed = ConfigRepository.load_config, {}

    def load_once(self: ConfigRepository, config_path: str) -> Any:
        folders = tuple(source.path for source in self.get_sources())
        if not set(folders) <= {"hydra.conf", str(CONF), ""}:  # a test's own folder, which may change
            return load(self, config_path)
        if config_path not in parsed:
            parsed[config_path] = load(self, config_path)
        return copy.deepcopy(parsed[config_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no test write into the user's cache; pytest's processes share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDWRITING_CACHE", str(shared_folder(tmp_path_factory) / "cache"))
        yield


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run ``python -m MODULE ARGUMENTS`` in tmp_path, without data sets and without network."""

    def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        closed = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env=os.environ | closed | {"HANDWRITING_DATA": str(tmp_path / "no_data"), "COLUMNS": "120"} | environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run


class Outcome(NamedTuple):
    """The result of a command that ran in this process."""

    code: int
    errors: str
    output: str


@pytest.fixture(scope="session")
def run_in() -> Callable[..., int]:
    """Run the command line in this process, where torch is imported already, in a folder: the exit code.

    Without ``figures`` no figure is drawn, which takes most of the time of a small run: the files have one white pixel.
    Hydra composes the config once, not a second time only to see whether hydra.mode makes it a sweep; the tests that
    start a process have Hydra as it is.
    """

    def run(folder: Path, *arguments: str, figures: bool = False) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)
            if not figures:
                for name in DRAWN:
                    patch.setattr(name, lambda *_, **__: None)
                patch.setattr("handwriting.plots.style.as_file", lambda *_: WHITE_DOT)
                patch.setattr("torch.utils.tensorboard.SummaryWriter.add_figure", lambda *_: None)
            patch.chdir(folder)
            patch.setenv("HANDWRITING_DATA", str(folder / "no_data"))
            patch.setenv("COLUMNS", "200")
            for scheme in ("http", "https"):
                patch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # no network
            patch.setattr(PROGRESS, "__dict__", vars(Progress()))
            patch.setattr(sys, "argv", ["handwriting", *arguments])
            try:
                with pytest.raises(SystemExit) as stop:
                    run_main()
            finally:
                logging.shutdown()
                logging.getLogger().handlers.clear()  # Hydra's handlers, which write into this folder
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a copy of a folder that the first of pytest's processes makes, and for which the others wait."""

    def get(name: str, make: Callable[[Path], object]) -> Path:
        shared = shared_folder(tmp_path_factory) / f"made_once_{name}"
        with FileLock(f"{shared}.lock"):
            if not shared.is_dir():
                making = tmp_path_factory.mktemp(name)
                make(making)
                making.rename(shared)
        return Path(shutil.copytree(shared, tmp_path_factory.mktemp(name), dirs_exist_ok=True))

    return get


@pytest.fixture(scope="session")
def wheel(made_once: Callable[..., Path]) -> Path:
    """Our wheel, built from this clone."""

    def make(folder: Path) -> None:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run(build, check=True, capture_output=True, timeout=120)

    (file,) = made_once("wheel", make).glob("*.whl")
    return file


@pytest.fixture(scope="session")
def digits_run(made_once: Callable[..., Path], run_in: Callable[..., int]) -> Path:
    """The folder of a run with a good accuracy on the bundled digits."""

    def make(folder: Path) -> None:
        assert run_in(folder, "data=digits", "trainer.max_epochs=4") == 0

    (result,) = made_once("digits", make).glob("outputs/digits/*/result.json")
    return result.parent


@pytest.fixture(scope="session")
def street_runs(made_once: Callable[..., Path], run_in: Callable[..., int]) -> dict[str, Path]:
    """Runs on 40 small house numbers, which they learn by heart: digit_heads with seed=0 and seed=1, a detector."""
    few = ("data=street_demo", "data.images=40", "data.test_images=40", "data.batch_size=8", "data.val_fraction=0")
    long = ("trainer.max_epochs=20", "scheduler=onecycle")
    heads = ("model=digit_heads", "model.widths=[16,32]", "model.depths=[1,1]", "model.max_length=3", "optim.lr=0.005")
    boxes = ("model=detector", "model.widths=[8,16,24]", "model.depths=[1,1,1]", "model.features=16", "optim.lr=0.02")
    models = {"seed=0": heads, "seed=1": (*heads, "seed=1"), "detector": boxes}

    def make(folder: Path) -> None:
        for name, model in models.items():
            assert run_in(folder, "name=study", *few, *long, *model) == 0
            (run,) = (folder / "outputs" / "study").glob("*/")
            run.rename(folder / name)  # its own name is long

    folder = made_once("street", make)
    return {name: folder / name for name in models}


@pytest.fixture(scope="session")
def ten_digits() -> tuple[np.ndarray, list[int]]:
    """Ten images of the digits' test set, uint8 (10, 28, 28), and their labels."""
    from handwriting.data.digits import read_digits  # torch

    test = read_digits().test
    return test.images[:10, 0].numpy(), test.labels[:10].tolist()


@pytest.fixture(scope="session")
def colour_digits() -> "HandwritingSet":
    """The bundled digits as small photographs, uint8 (N, 3, 24, 24): each in a dark colour on a bright one."""
    import torch

    from handwriting.data.dataset import HandwritingSet, LabelledImages
    from handwriting.data.digits import read_digits

    def paint(digits: LabelledImages) -> LabelledImages:
        paper = torch.randint(160, 256, (len(digits), 3, 1, 1), generator=torch.Generator().manual_seed(0))
        strokes = digits.images[:, :, 2:-2, 2:-2] / 255
        return LabelledImages((paper - 120 * strokes).round().byte(), digits.labels)

    digits = read_digits()
    test = digits.test[torch.arange(200)]
    return HandwritingSet(paint(digits.train), paint(test), digits.class_names, photographs=True)


@pytest.fixture(scope="session")
def page_of() -> Callable[..., contextlib.AbstractContextManager[tuple[str, subprocess.Popen[str]]]]:
    """Serve the drawing page from a folder, in a process of its own: its address and its process."""

    @contextlib.contextmanager
    def serve(folder: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        closed = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")} | {"no_proxy": "127.0.0.1"}
        command = [sys.executable, "-m", "handwriting.draw", *arguments, f"--port={port}"]
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | closed | environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            if not said.startswith(f"Open http://127.0.0.1:{port}"):
                process.kill()  # otherwise its stderr has no end
                pytest.fail(said + process.stderr.read())
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.communicate()

    return serve


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], run_in: Callable[..., int]
) -> Callable[..., Outcome]:
    """Run the command line in this process and in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, figures: bool = False) -> Outcome:
        code = run_in(tmp_path, *arguments, figures=figures)
        output, errors = capfd.readouterr()
        return Outcome(code, errors, output)

    return call


@pytest.fixture
def make_run() -> Callable[..., Path]:
    """Write the folder of a run like handwriting.run does, without training."""

    def make(folder: Path, *overrides: str, status: str = "done", accuracy: float = 0.9, **more: Any) -> Path:
        given = dict(override.split("=", 1) for override in overrides)
        seed = int(given.get("seed", 0))
        choices = {"optim": given.get("optim", "adam"), "data": "digits"}
        settings = {
            "seed": seed,
            "optim": {"lr": float(given.get("optim.lr", 0.001)), "_target_": choices["optim"]},
            "data": {"shuffle_seed": seed, "batch_size": int(given.get("data.batch_size", 64))},
            "model": {"pooling": given.get("model.pooling", "max")},
            "augment": {"seed": seed},
        }
        path = folder / (",".join(sorted(overrides)) or "default")
        path.mkdir(parents=True)
        metrics = {"test/acc": accuracy, "val/acc": accuracy - 0.01, "test/loss": 0.3, "val/loss": 0.4}
        record = {
            "fingerprint": json.dumps([settings, choices]),
            "settings": settings,
            "choices": choices,
            "overrides": list(overrides),
            "started": "2026-01-01",
            "status": status,
            **({"metrics": metrics, "epochs": 2, "seconds": 1.5, "parameters": 1000} if status == "done" else {}),
            **more,
        }
        (path / "result.json").write_text(json.dumps(record))
        rows = ["epoch,step,train/loss_step,val/acc"]
        rows += [f",{step},{2 / step},\n{step // 10 - 1},{step - 1},,{accuracy - 0.1 / step}" for step in (10, 20)]
        (path / "metrics.csv").write_text("\n".join(rows) + "\n")
        return path

    return make
