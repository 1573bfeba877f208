"""Launching of a sweep: finished jobs are found by the digest of their overrides."""

import json
import shutil
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from handwriting.runs.config import digest_of_request
from handwriting.sweeps.hydra_hooks import some_with_each_choice

SMALL = ["data=digits", "data.limit=100", "trainer.max_epochs=1", "model.widths=[4,8]", "model.hidden=[16]"]
SWEEP = ["-m", *SMALL, "optim=sgd,adam"]


def test_each_choice_and_each_setting_is_checked_once_before_a_sweep():
    batch = [[f"optim={optim}", f"seed={seed}", "data.limit=10"] for optim in ("sgd", "adan") for seed in range(100)]
    assert some_with_each_choice(batch, {"optim", "data"}) == [batch[0], batch[100]]
    assert some_with_each_choice([["optim.lr=1"], ["optim.lr=2"], ["+optim.x=1"]], {"optim"}) == [
        ["optim.lr=1"], ["+optim.x=1"],
    ]  # fmt: skip
    assert some_with_each_choice([[]], set()) == [[]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, run_in) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    assert run_in(folder, *SWEEP) == 0
    return folder


@pytest.fixture
def done(swept: Path, tmp_path: Path) -> Path:
    """The folder of two finished runs; tmp_path is where the same command finds it."""
    return Path(shutil.copytree(swept / "outputs", tmp_path / "outputs")) / "digits"


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The overrides of each job that Hydra composes in its turn, in their order."""
    jobs: list[list[str]] = []
    compose = ConfigLoaderImpl.load_sweep_config

    def note(self, master_config, sweep_overrides):
        jobs.append(list(sweep_overrides))
        return compose(self, master_config, sweep_overrides)

    # Hydra's check before the first job composes too; that is not a job's turn.
    monkeypatch.setattr("hydra.plugins.sweeper.Sweeper.validate_batch_is_legal", lambda *_: None)
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", note)
    return jobs


@pytest.mark.long
def test_a_finished_job_is_not_composed(main, done: Path, composed: list[list[str]]):
    again = main(*SWEEP)
    assert composed == []
    assert again.code == 0
    assert again.output.count("%  already done") == 2
    assert "Nothing was trained" in again.output

    more = main(*SWEEP[:-1], "trainer.enable_progress_bar=false", "optim=sgd,adam,momentum")
    assert more.code == 0
    assert [job[-1] for job in composed] == ["optim=momentum"]
    assert "job 3 of 3" in more.output


@pytest.mark.long
def test_what_is_not_done_is_composed(main, done: Path, composed: list[list[str]]):
    (path,) = done.glob("*optim=sgd*/result.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    assert main(*SWEEP).code == 0
    assert [job[-1] for job in composed] == ["optim=sgd"]


@pytest.mark.parametrize("more", [["force=true"], ["hydra.sweep.subdir=other/${run_folder:}"], ["name=other"]])
def test_a_job_that_goes_elsewhere_or_is_forced_is_composed(main, done: Path, composed: list[list[str]], more):
    before = {path: path.stat().st_mtime_ns for path in done.glob("*/result.json")}
    assert main(*SWEEP, *more).code == 0
    assert len(composed) == 2
    assert {path for path, at in before.items() if path.stat().st_mtime_ns != at} == set(
        before if more == ["force=true"] else []
    )


def test_the_digest_changes_only_with_a_setting_or_a_config_file(tmp_path: Path):
    (tmp_path / "optim").mkdir()
    file = tmp_path / "optim" / "adam.yaml"
    file.write_text("lr: 0.001")
    sources = [{"path": str(tmp_path), "schema": "file"}, {"path": "hydra.conf", "schema": "pkg"}]
    one = digest_of_request(["seed=1", "optim=adam"], sources)
    assert digest_of_request(["seed=1", "force=true", "optim=adam"], sources) == one
    assert digest_of_request(["seed=2", "optim=adam"], sources) != one
    assert digest_of_request(["seed=1", "optim=adam", "name=x"], sources) != one
    twice = [digest_of_request(order, sources) for order in (["seed=1", "seed=2"], ["seed=2", "seed=1"])]
    assert twice[0] != twice[1], "the last one holds"
    changed = tmp_path / "changed"
    shutil.copytree(tmp_path / "optim", changed / "optim")
    (changed / "optim" / "adam.yaml").write_text("lr: 0.1")
    assert digest_of_request(["seed=1", "optim=adam"], [{"path": str(changed), "schema": "file"}]) != one
