"""Checks before a job begins: mixed sweeps, own components, derived modes."""

from collections.abc import Callable

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from handwriting.runs.checks import check_baseline, check_config
from handwriting.runs.config import CONF
from handwriting.runs.record import plain_settings
from handwriting.utils.errors import UserError

STOP = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: "
PLATEAU = "scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, "
SAVE = "+callbacks.save={_target_: lightning.pytorch.callbacks.ModelCheckpoint, monitor: "


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """The default config with Hydra's node: composed once, as that takes longer than all that is checked here."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["hydra.runtime.output_dir=here"], return_hydra_config=True)


@pytest.fixture
def check(composed: DictConfig) -> Callable[..., DictConfig]:
    """Check the default config with some overrides, as a job is checked before it begins."""

    def call(*overrides: str) -> DictConfig:
        config = composed.copy()
        for override in overrides:
            key, _, value = override.lstrip("+").partition("=")
            OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        check_config(job, config.hydra)
        return job

    return call


@pytest.mark.parametrize(
    ("metric", "mode"), [("val/acc", "max"), ("val/loss", "min"), ("train/acc", "max"), ("train/loss", "min")]
)
def test_the_mode_of_the_monitor_is_that_of_its_metric(check, metric: str, mode: str):
    config = check(f"monitor.metric={metric}")
    assert config.monitor.mode == config.callbacks.checkpoint.mode == mode
    check(f"monitor.metric={metric}", f"monitor.mode={mode}")
    contrary = "min" if mode == "max" else "max"
    with pytest.raises(UserError, match=rf"monitor.mode={contrary} contradicts monitor.metric={metric}"):
        check(f"monitor.metric={metric}", f"monitor.mode={contrary}")


def test_the_settings_of_a_default_run_hold_the_mode_itself(check):
    config = OmegaConf.masked_copy(check(), "monitor")
    settings = plain_settings(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    assert settings == {"monitor": {"metric": "val/acc", "mode": "max"}}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["monitor.metric=val/lss"], "monitor.metric=val/lss does not exist. Did you mean 'val/loss'? Known: val/acc,"),
        (["monitor.metric=test/acc"], "monitor.metric=test/acc is of the test set, which is not used to choose."),
        (["monitor.metric=null"], "monitor.metric=None does not exist"),
        (["monitor.mode=best"], "monitor.mode=best contradicts monitor.metric=val/acc, of which higher is better"),
        ([STOP + "val/acc}"], "callbacks.stop.mode=min contradicts callbacks.stop.monitor=val/acc"),  # its default
        ([STOP + "val/loss, mode: max}"], "callbacks.stop.mode=max contradicts"),
        ([STOP + "val/accuracy, mode: max}"], "callbacks.stop.monitor=val/accuracy is not a metric of training or"),
        (["callbacks.last=null", STOP + "val/gap}"], "callbacks.stop.monitor=val/gap is not a metric"),
        ([SAVE + "test/acc, mode: max}"], "callbacks.save.monitor=test/acc is not a metric of training or"),
        (["callbacks.checkpoint.mode=min"], "callbacks.checkpoint.mode=min contradicts"),
        ([PLATEAU + "mode: max}"], "scheduler.mode=max contradicts"),
        (
            ["scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, total_steps: 9}"],
            "scheduler.total_steps is the length of the training",
        ),
        (["+callbacks.x=1"], "callbacks.x=1 is not a callback"),
        (["+foo=1"], "The setting 'foo' is not used by anything"),
        (["+sead=1"], "Did you mean 'seed'?"),
        (["+foo.bar=1", "optim.lr=0.1"], "The setting 'foo' is not used by anything"),
        (["+monitor.foo=1"], "The setting 'monitor.foo' is not used by anything"),
        (["+tta.view=8"], "The setting 'tta.view' is not used by anything: leave it out. Did you mean 'tta.views'?"),
        (["+average.decay=0.9"], "The setting 'average' is not used by anything"),
        (["+hydra.foo=1"], "The setting 'hydra.foo' is not used by anything"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_has_no_effect_or_the_opposite_one_is_refused(check, overrides: list[str], sentence: str):
    with pytest.raises(UserError) as refused:
        check(*overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["+rates={fast: 0.1}", "optim.lr=${rates.fast}"],  # an own setting that another one refers to
        ["+study=one", "hydra.job.name=${study}"],
        [STOP + "val/loss}"],
        [STOP + "val/acc, mode: max}"],
        [SAVE + "epoch, mode: max}"],
        ["+callbacks.gap._target_=mine.LogGap", STOP + "val/gap}"],  # an own callback may log an own metric
        ["callbacks.last=null"],
        ["search={adam: {optim.lr: {low: 0.1, high: 1}}}"],
    ],
    ids=" ".join,
)
def test_own_settings_callbacks_and_metrics_are_accepted(check, overrides: list[str]):
    check(*overrides)


IGNORED = ["optim=sgd", "optim.lr=0.1", "scheduler=onecycle", "loss=focal", "loss.label_smoothing=0.1", "average=ema"]
IGNORED += ["tta.views=5", "trainer=ddp", "trainer.devices=2", "trainer.precision=bf16-mixed", "compile=true"]
IGNORED += ["augment.clean_epochs=1", "callbacks.last=null", "on_nan=keep", "++trainer.accumulate_grad_batches=2"]


@pytest.mark.parametrize("override", IGNORED)
def test_an_option_that_a_baseline_ignores_is_refused_by_its_name(check, override: str):
    config = check()
    with pytest.raises(UserError) as refused:
        check_baseline(config, ["model=knn", override])
    assert str(refused.value).startswith(f"{override} has no effect on a classical baseline")


@pytest.mark.parametrize(
    ("setting", "value"), [("tta.views", 5), ("trainer.devices", 2), ("callbacks.ema", {"_target_": "x"})]
)
def test_what_an_experiment_sets_is_refused_where_it_would_change_the_result(check, setting: str, value):
    config = check()
    with open_dict(config):
        OmegaConf.update(config, setting, value)
    with pytest.raises(UserError, match=rf"^{setting}"):
        check_baseline(config, ["model=knn"])


def test_a_sweep_over_networks_and_baselines_may_name_epochs_bars_and_defaults(check):
    overrides = ["experiment=classics", "model=knn", "seed=1", "trainer.max_epochs=1", "average=none", "tta.views=1"]
    overrides += ["trainer.enable_progress_bar=false", "data=digits", "data.limit=100", "model.features=hog"]
    check_baseline(check("trainer.max_epochs=5", "optim.lr=0.01"), overrides)  # as an experiment sets them
