"""Run folders of the layout before handwriting/ had topic folders are as good as new ones.

tests/fixtures/old holds three of them: a finished network whose config names modules that have moved (Muon, the focal
loss, averaging), a network that was interrupted, and a classical baseline.
"""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FIXTURE = Path(__file__).parents[1] / "fixtures" / "old"
SMALL = ("data=digits", "data.limit=300", "name=old")
NET = ("model.widths=[4,8]", "model.hidden=[16]")
FINISHED = (*SMALL, *NET, "trainer.max_epochs=4", "loss=focal", "optim=muon", "average=swa", "augment=affine")
INTERRUPTED = (*SMALL, *NET, "trainer.max_epochs=20", "scheduler=cyclic", "model.dropout=0.1", "optim=adamw")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the three runs, in tmp_path, where the working folder is."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(FIXTURE, tmp_path / "outputs" / "old"))


def finished(old: Path) -> Path:
    (folder,) = old.glob("augment=affine*")
    return folder


@pytest.mark.parametrize("overrides", [FINISHED, (*SMALL, "model=knn")], ids=["network", "baseline"])
def test_a_finished_old_run_is_skipped(main, old: Path, overrides: tuple[str, ...]):
    before = {path: path.read_bytes() for path in old.rglob("result.json")}
    done = main(*overrides)
    assert (done.code, "Nothing was trained" in done.output) == (0, True), done.errors
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.long
def test_an_interrupted_old_run_resumes(main, old: Path):
    (folder,) = old.glob("*scheduler=cyclic*")
    assert main(*INTERRUPTED).code == 0
    record = json.loads((folder / "result.json").read_text())
    assert (record["status"], record["epochs"], len(record["resumed"])) == ("done", 20, 1)
    assert {path.name for path in folder.glob("checkpoints/cycle*")} == {
        f"cycle{number}.ckpt" for number in range(1, 6)
    }


def test_a_new_run_of_other_settings_is_refused_in_an_old_folder(main, old: Path):
    refused = main(*FINISHED, "optim.lr=0.5", f"hydra.run.dir='{finished(old)}'")
    assert refused.code == 2
    assert "(optim.lr was 0.0003, is 0.5)" in refused.errors  # and nothing else: a module that moved is no difference


def test_old_runs_are_compared(old: Path, capsys: pytest.CaptureFixture[str]):
    import_module("handwriting.compare").main(["outputs/old"])
    assert "93.00" in capsys.readouterr().out  # of the baseline
    assert (old / "summary.md").is_file()


def test_an_old_run_is_evaluated(old: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("handwriting.inference.evaluation_report._figures", lambda *_: {})  # tested elsewhere
    import_module("handwriting.evaluate").main([str(finished(old))])
    evaluation = json.loads((finished(old) / "evaluation" / "test" / "evaluation.json").read_text())
    record = json.loads((finished(old) / "result.json").read_text())
    (scores,) = evaluation["models"].values()
    assert scores["acc"] == pytest.approx(record["metrics"]["test/acc"])


def test_an_old_run_predicts(old: Path, capsys: pytest.CaptureFixture[str]):
    image = np.full((60, 60), 255, np.uint8)
    image[10:50, 28:33] = 0
    Image.fromarray(image).save("one.png")
    with pytest.raises(SystemExit) as stop:
        import_module("handwriting.predict").main([str(finished(old)), "one.png"])
    assert stop.value.code == 0
    assert "one.png" in capsys.readouterr().out


@pytest.mark.long
def test_an_old_run_is_exported(old: Path):
    import_module("handwriting.export").main([str(finished(old)), "--onnx", "net.onnx"])
    assert Path("net.onnx").stat().st_size > 1000
