from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from handwriting.runs.config import CONF, count_jobs, explain, groups, known_settings, name_folder


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "default"),
        (["optim=adam", "seed=1"], "optim=adam,seed=1"),
        (["seed=1", "optim=adam"], "optim=adam,seed=1"),
        (["name=x", "force=true", "trainer.enable_progress_bar=false", "seed=2"], "seed=2"),
        (["optim.lr=0.1", "optim=adam"], "optim=adam,optim.lr=0.1"),
        (["model.widths=[32,64]"], "model.widths=[32,64]"),
        (["data.path=/a/b c.mat"], "data.path=_a_b_c.mat"),
        (["+optim.foo=1", "~callbacks.x"], "+optim.foo=1,~callbacks.x"),
        (["name=汉字", "data=数"], "data=数"),
        (['init_from="/a/b/outputs/first/optim=adam,seed=1"'], "init_from=first_optim=adam,seed=1"),
        (["init_from=outputs/first/default/checkpoints/best.ckpt"], "init_from=first_default"),
        (["init_from=outputs/first/default/checkpoints/cycle2.ckpt"], "init_from=first_default_cycle2.ckpt"),
        (["init_from=best.ckpt"], "init_from=best.ckpt"),
        (["init_from=null"], "init_from=null"),
    ],
)
def test_a_run_is_called_by_its_overrides(overrides: list[str], name: str):
    assert name_folder(overrides) == name


def test_a_long_name_stays_short_and_unique(tmp_path: Path):
    names = {name_folder([f"model.hidden=[{'字8,' * 100}{i}]"]) for i in range(3)}
    assert len(names) == 3
    for name in names:
        (tmp_path / name).mkdir()


def test_what_the_parent_folder_says_is_not_said_again():
    assert name_folder(["data=digits", "optim=sgd"], skip=["data=digits"]) == "optim=sgd"


@pytest.mark.parametrize(
    ("overrides", "params", "jobs"),
    [
        (["optim=sgd,adam"], None, 2),
        (["optim=sgd,adam", "seed=0,1,2", "data=digits"], {}, 6),
        (["seed=range(5)"], {"optim": "sgd,adam"}, 10),
        (["optim=adam"], {"optim": "sgd,adam"}, 1),
        (["model.widths=[32],[32,64]"], None, 2),
        (["optim.lr=choice(.1,.2,.3)"], None, 3),
    ],
)
def test_jobs_are_counted_as_hydra_makes_them(overrides: list[str], params: dict | None, jobs: int):
    assert count_jobs(overrides, params) == jobs


def test_known_settings_are_those_of_the_default_config():
    known = known_settings()
    assert {"data", "data.batch_size", "optim.lr", "seed", "trainer.max_epochs", "monitor.metric"} <= set(known)


def test_the_groups_are_the_folders_of_conf():
    named = "augment average data debug experiment logger loss model optim scheduler stop trainer"
    assert groups() == named.split()
    assert (CONF / "config.yaml").is_file()


def test_jobs_of_a_glob_are_counted_where_hydra_runs():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert count_jobs(["scheduler=glob(*)"], None) == len(list((CONF / "scheduler").glob("*.yaml")))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["stop.patience=3"], "this choice of stop has no setting 'patience': leave it out, or choose another stop."),
        (["scheduler=none", "scheduler.gamma=1"], "scheduler=none has no setting 'gamma': leave it out, or choose"),
        (["optim=sgd", "optim.betas=[0,0]"], "optim=sgd has no setting 'betas'"),
        (["optim.learning_rate=1"], "There is no setting 'optim.learning_rate'."),
        (["stop={patience: 3}"], "This choice of stop has no settings to override: write +stop=…"),
    ],
    ids=" ".join,
)
def test_a_setting_that_a_choice_does_not_have_is_explained_by_its_choice(overrides: list[str], sentence: str):
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(HydraException) as error:
        compose("config", overrides)
    assert sentence in explain(error.value, overrides)
