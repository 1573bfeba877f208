"""Real runs and sweeps, in processes of their own, on the bundled digits."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from handwriting.data.digits import read_digits

RUN = "handwriting.run"
# As small as a real run gets: 100 images, one epoch, 1,000 parameters.
SMALL = ("data=digits", "data.limit=100", "trainer.max_epochs=1", "model.widths=[4,8]", "model.hidden=[16]")

# The sweep that is looked at: all images, and a net of half the width.
HALF = ("data=digits", "model.widths=[16,32]", "trainer.max_epochs=2")


def records(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two optimizers and two seeds, once for all tests that only look at the outcome."""
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["-m", *HALF, "optim=sgd,adam", "seed=0,1", "name=study"]
    result = subprocess.run(
        [sys.executable, "-m", RUN, *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )
    assert result.stderr == ""  # no warnings, and nothing said at the end by modules that are torn down
    return folder / "outputs" / "study", result.stdout


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[..., int]) -> Path:
    folder = tmp_path_factory.mktemp("small")
    assert run_in(folder, *SMALL) == 0
    return folder


@pytest.fixture
def trained(small_run: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of SMALL; tmp_path is where the same command finds it."""
    shutil.copytree(small_run / "outputs", tmp_path / "outputs")
    (result,) = tmp_path.glob("outputs/digits/*/result.json")
    return result.parent


@pytest.mark.long
def test_a_sweep_leaves_a_folder_a_job_and_a_report(sweep: tuple[Path, str]):
    folder, output = sweep
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "summary.csv",
        "summary.md",
        "differences.csv",
        "curves.png",
        "ranking.png",
    }
    runs = records(folder)
    assert list(runs) == [
        f"data=digits,model.widths=[16,32],optim={optim},seed={seed},trainer.max_epochs=2"
        for optim in ("adam", "sgd")
        for seed in (0, 1)
    ]
    assert all(f"job {i} of 4" in output for i in (1, 2, 3, 4))
    with (folder / "summary.csv").open() as file:
        summary = {row["optim"]: row for row in csv.DictReader(file)}
    assert {row["seeds"] for row in summary.values()} == {"2"}
    for optim in ("sgd", "adam"):
        accuracies = [run["metrics"]["test/acc"] for name, run in runs.items() if f"optim={optim}" in name]
        assert float(summary[optim]["test/acc"]) == pytest.approx(sum(accuracies) / 2)
    assert float(summary["adam"]["test/acc"]) > 0.8


@pytest.mark.long
def test_a_run_leaves_everything_in_its_folder(sweep: tuple[Path, str]):
    folder = next(sweep[0].glob("*optim=adam,seed=0*"))
    run = json.loads((folder / "result.json").read_text())
    assert run["status"] == "done"
    assert run["settings"]["optim"]["lr"] == pytest.approx(0.001)
    assert run["choices"]["optim"] == "adam"
    assert (run["epochs"], run["parameters"]) == (2, 108_618)
    assert run["images"] == {"train": 1038, "val": 259, "test": 500}
    assert run["seconds"] > 0
    assert {"python", "torch", "lightning", "handwriting"} <= run["versions"].keys()
    assert torch.__version__.startswith(run["versions"]["torch"])
    assert run["device"] == "cpu, 1 thread"
    assert run["processor"]["name"]
    assert run["chance"] == read_digits().test.labels.bincount().max().item() / 500
    assert "git_revision" in run
    assert run["metrics"].keys() == {f"{part}/{m}" for part in ("train", "val", "test") for m in ("loss", "acc")}
    logged = pd.read_csv(folder / "metrics.csv").count()
    assert logged[["val/acc", "val/loss", "train/acc", "train/loss", "lr"]].tolist() == [2] * 5
    assert logged["train/loss_step"].tolist() == 14  # of 2 × 65 steps: a mean of every ten, and of what is left over
    assert list(folder.glob("events.out.tfevents.*"))
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (folder / ".hydra" / "config.yaml").is_file()
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["handwriting"]["class_names"] == list("0123456789")


@pytest.mark.long
def test_seeds_differ_and_the_same_seed_repeats(sweep: tuple[Path, str], main, tmp_path: Path):
    runs = records(sweep[0])
    first, second = (run["metrics"] for name, run in runs.items() if "optim=adam" in name)
    assert first != second
    assert main(*HALF, "name=again").code == 0  # adam and seed 0 are the defaults
    (again,) = records(tmp_path / "outputs" / "again").values()
    assert again["metrics"] == first
    assert again["fingerprint"] == next(run["fingerprint"] for name, run in runs.items() if "optim=adam,seed=0" in name)


def test_the_same_command_again_trains_nothing_and_says_so(main, tmp_path: Path):
    arguments = ("-m", *SMALL, "optim=sgd,adam")
    assert main(*arguments)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outputs/digits/*/result.json")}
    again = main(*arguments)
    assert again.code == 0
    assert "Nothing was trained" in again.output
    assert again.output.count("%  already done") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before

    assert main("-m", *SMALL, "optim=sgd,adam,momentum")[0] == 0  # tomorrow one more
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(records(tmp_path / "outputs" / "digits")) == 3

    assert main("-m", *SMALL, "optim=sgd", "force=true")[0] == 0
    changed = [path.parent.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert changed == ["data.limit=100,model.hidden=[16],model.widths=[4,8],optim=sgd,trainer.max_epochs=1"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_stopped_run_reports_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int):
    arguments = ("data=digits", "trainer.max_epochs=400", "name=x")
    process = subprocess.Popen(
        [sys.executable, "-m", RUN, *arguments],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for what it starts with &
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/x/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "The same command resumes" in output
    (run,) = records(tmp_path / "outputs" / "x").values()
    assert run["status"] == "interrupted"

    assert "trainer.max_epochs=400" in output  # with the report of what is there


@pytest.mark.long
@pytest.mark.parametrize("broken", ["cut off", "no checkpoint"])
def test_a_run_without_anything_to_resume_from_is_retrained(main, trained: Path, broken: str):
    path = trained / "result.json"
    good = json.loads(path.read_text())
    path.write_text(path.read_text()[:200] if broken == "cut off" else json.dumps(good | {"status": "running"}))
    (path.parent / "checkpoints" / "last.ckpt").unlink()
    stale = path.parent / "events.out.tfevents.1.stale"
    stale.touch()
    assert main(*SMALL)[0] == 0
    assert json.loads(path.read_text())["metrics"] == good["metrics"]
    assert not stale.exists()


def test_a_failing_job_is_a_row_and_the_others_run(main, tmp_path: Path):
    code, errors, output = main("-m", *SMALL, "data.batch_size=16,0,32")
    assert code == 2
    assert [run["status"] for run in records(tmp_path / "outputs" / "digits").values()] == ["failed", "done", "done"]
    assert "Not finished: data.batch_size=0" in output
    assert "Traceback" not in errors
    (log,) = tmp_path.glob("outputs/digits/data.batch_size=0*/run.log")
    assert "must be a whole number" in log.read_text()


def test_a_bug_of_ours_has_its_traceback_in_the_log_of_its_job(main, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes, image_size, **more):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.LazyLinear(num_classes)\n"
        "    def forward(self, images):\n"
        "        if self.training and torch.is_grad_enabled():\n"
        "            raise RuntimeError('boom')\n"
        "        return self.layer(images.flatten(1))\n"
    )
    targets = "model._target_=broken.Net,handwriting.models.net.Net"
    assert main("-m", *SMALL, "model=net", targets)[0] == 1
    done = {run["settings"]["model"]["_target_"]: run for run in records(tmp_path / "outputs" / "digits").values()}
    assert done["handwriting.models.net.Net"]["status"] == "done"
    assert done["broken.Net"]["reason"] == "RuntimeError: boom"
    (log,) = tmp_path.glob("outputs/digits/*broken.Net*/run.log")
    assert "Traceback" in log.read_text()


def test_other_settings_never_mix_into_an_old_folder(main, trained: Path):
    path = trained / "result.json"
    before = path.read_text()
    path.write_text(before.replace('"lr": 0.001', '"lr": 0.5').replace('"fingerprint": "', '"fingerprint": "old'))
    changed = path.read_text()
    code, errors, _ = main(*SMALL)
    assert code == 2
    assert "optim.lr was 0.5, is 0.001" in errors
    assert "name=" in errors
    assert "force=true" in errors
    assert path.read_text() == changed
    assert (path.parent / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_force_with_bad_input_does_not_lose_what_stands(main, trained: Path, monkeypatch, sweep: list[str]):
    folder = trained
    kept = {path: path.read_bytes() for path in [folder / "result.json", *folder.glob("checkpoints/*")]}
    assert len(kept) == 3
    place = f"hydra.sweep.subdir='digits/{folder.name}'" if sweep else f"hydra.run.dir='{folder}'"
    code, errors, _ = main(*sweep, *SMALL, "force=true", "optim.lr=-1", place)
    assert (code, "Invalid learning rate" in errors) == (2, True)
    assert {path: path.read_bytes() for path in kept} == kept
    monkeypatch.setattr("handwriting.data.digits.TEST_IMAGES", 1796)  # one training image: no split can be drawn
    assert main(*sweep, *SMALL, "force=true")[0] == 2
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_failed_run_of_other_settings_is_replaced(main, trained: Path):
    path = trained / "result.json"
    failed = json.loads(path.read_text()) | {"status": "failed", "fingerprint": "old"}
    path.write_text(json.dumps(failed))
    assert main(*SMALL)[0] == 0
    assert json.loads(path.read_text())["status"] == "done"


HELP = Path(__file__).parent / "help.txt"


def test_the_help_is_the_pinned_text(command):
    result = command(RUN, "--help")
    assert result.returncode == 0
    assert result.stdout.strip() == HELP.read_text().strip(), "if the change is meant, update tests/help.txt"


def test_hydra_prints_the_composed_config(command):
    result = command(RUN, "--cfg", "job", "optim=sgd")
    assert result.returncode == 0
    assert "torch.optim.SGD" in result.stdout


def test_quiet_means_no_bar(main):
    assert main(*SMALL, "trainer.enable_progress_bar=false")[:2] == (0, "")


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_on_a_terminal_a_bar_shows_the_epochs(tmp_path: Path):
    import pty

    main, side = pty.openpty()
    arguments = [sys.executable, "-m", RUN, "-m", *SMALL, "trainer.max_epochs=2", "seed=0,1"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "150"}
    process = subprocess.Popen(arguments, cwd=tmp_path, stderr=side, stdout=subprocess.DEVNULL, env=environment)
    os.close(side)
    seen = b""
    while True:
        try:
            seen += os.read(main, 65536)
        except OSError:  # the other side has closed
            break
    assert process.wait(timeout=120) == 0
    text = seen.decode()
    assert "job 1 of 2" in text
    assert "job 2 of 2, about" in text
    assert "epoch 2 of 2, validation" in text


def test_the_network_is_compiled_if_configured(main, monkeypatch: pytest.MonkeyPatch):
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: compiled.append(type(net).__name__))
    assert main(*SMALL, "compile=true").code == 0
    assert compiled == ["Net"]
    assert main(*SMALL, "name=plain").code == 0
    assert compiled == ["Net"]
