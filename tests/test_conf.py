"""Every YAML in conf/ is composed and what it names is made, so that none rots."""

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from handwriting.data import Augmentation, LabelledImages
from handwriting.data.dataset import END, Sequences
from handwriting.models.baselines import Baseline
from handwriting.models.sequence_model import SequenceModel
from handwriting.reports.groups import PER_SEED
from handwriting.runs.checks import check_config
from handwriting.runs.config import CONF, choices_of, groups
from handwriting.runs.record import flatten
from handwriting.training.fit import build
from handwriting.training.loggers import build_logger
from handwriting.utils.errors import UserError

FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml"))
GROUPS = {group: choices_of(group) for group in groups()}


def composed(*overrides: str) -> DictConfig:
    """The config with these overrides; composed once for all tests, and read-only."""
    config = _compose(overrides)
    HydraConfig.instance().set_config(config)
    return config


@cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*overrides, "hydra.runtime.output_dir=here"], return_hydra_config=True)
    OmegaConf.set_readonly(config, True)
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), resolve=True
    )
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_composes_and_resolves(file: Path):
    group, *choice = file.parts
    overrides = [f"{group}={'/'.join(choice)}"] if choice and not file.name.startswith("_") else []
    config = composed(*overrides)
    assert {"data", "model", "optim", "scheduler", "trainer"} <= resolved(config).keys()
    try:
        check_config(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), config.hydra)
    except UserError as error:
        if group != "logger":
            raise
        pytest.skip(str(error))  # its package is an extra that make test does not install


def test_what_follows_the_seed_does_not_set_runs_apart():
    followers = set()
    for file in FILES:
        values: Any = OmegaConf.to_container(OmegaConf.load(CONF / file.with_suffix(".yaml")))
        group = f"{file.parent}." if len(file.parts) > 1 else ""
        followers |= {group + key for key, value in flatten(values).items() if value == "${seed}"}
    assert followers == PER_SEED - {"seed", "data.fold"}


@pytest.mark.long
@pytest.mark.parametrize("experiment", GROUPS["experiment"])
def test_every_job_of_an_experiment_composes_and_its_objects_are_made(experiment: str):
    params = composed(f"experiment={experiment}").hydra.sweeper.params or {}
    for values in product(*(str(values).split(",") for values in params.values())):
        job = [f"{key}={value}" for key, value in zip(params, values, strict=True)]
        config = composed(f"experiment={experiment}", *job)
        resolved(config)
        net = build("model", config.model, num_classes=10, image_size=(28, 28))
        if not isinstance(net, Baseline):
            build("optim", config.optim)(net.parameters())
        assert isinstance(build("augment", config.augment), Augmentation)


@pytest.mark.parametrize("name", GROUPS["data"])
def test_every_data_set_names_a_loader_and_a_module(name: str):
    data = composed(f"data={name}").data
    assert data.name == name
    assert callable(get_method(data.read._target_))
    if name == "digits":
        assert instantiate(data).class_names == tuple("0123456789")


@pytest.mark.parametrize("name", GROUPS["augment"])
def test_every_augmentation_changes_what_training_sees_unless_it_is_none(name: str):
    augmentation = build("augment", composed(f"augment={name}").augment)
    images = torch.randint(0, 256, (16, 1, 28, 28), dtype=torch.uint8)
    part = augmentation.expand(LabelledImages(images, torch.arange(16)))
    varied, _ = augmentation.vary(part.images, part.labels, 16, augmentation.generator(0, torch.device("cpu")))
    assert varied.dtype == torch.uint8
    assert torch.equal(varied, images) == (name == "none")


def test_the_loss_is_the_cross_entropy_unless_labels_are_smoothed():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    loss = build("loss", composed().loss)
    assert torch.equal(loss(logits, labels), nn.functional.cross_entropy(logits, labels))
    assert build("loss", composed("loss.label_smoothing=0.1").loss).label_smoothing == 0.1


@pytest.mark.parametrize("name", GROUPS["model"])
def test_every_model_classifies_or_transcribes_images(name: str):
    net = build("model", composed(f"model={name}").model, num_classes=7, image_size=(28, 28))
    if isinstance(net, Baseline):
        net.fit(LabelledImages(torch.randint(256, (70, 1, 28, 28), dtype=torch.uint8), torch.arange(70) % 7))
        assert net.predict_proba(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape == (2, 7)
        return
    if isinstance(net, SequenceModel):
        labels, boxes = torch.tensor([[6, 0], [3, END]]), torch.tensor([[[2.0, 4, 9, 20], [12, 4, 20, 22]]] * 2)
        loss, outputs = net.eval().loss(torch.zeros(2, 3, 28, 28), Sequences(labels, boxes), nn.CrossEntropyLoss())
        assert loss.isfinite()
        assert {len(values) for values in outputs.values()} == {2}
        assert all(set(one.labels) <= set(range(7)) and 0 <= one.probability <= 1 for one in net.decode(outputs))
        return
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize("name", GROUPS["stop"])
def test_early_stopping_is_made_for_the_monitored_metric_unless_it_is_none(name: str):
    stop = build("stop", composed(f"stop={name}", "monitor.metric=val/loss").stop)
    assert (stop is None) == (name == "none")
    assert stop is None or (stop.monitor, stop.mode) == ("val/loss", "min")


@pytest.mark.parametrize("name", GROUPS["logger"])
def test_every_logger_is_made_if_its_package_is_installed(tmp_path: Path, name: str):
    if name != "tensorboard":
        pytest.importorskip(name, reason=f"needs the extra {name}")
    logger = build_logger(composed(f"logger={name}", f"hydra.runtime.cwd={tmp_path}").logger)
    assert (logger is None) == (name == "tensorboard")


@pytest.mark.parametrize("optim", GROUPS["optim"])
@pytest.mark.parametrize("scheduler", GROUPS["scheduler"])
def test_every_optimizer_works_with_every_scheduler(optim: str, scheduler: str):
    # Composed apart, 14 times instead of 48, and put together: a scheduler refers to optim.lr and to the trainer.
    parts = composed(f"optim={optim}")
    chosen = {"optim": parts.optim, "trainer": parts.trainer, "scheduler": composed(f"scheduler={scheduler}").scheduler}
    config = OmegaConf.create(chosen)
    optimizer = build("optim", config.optim)(nn.Linear(1, 1).parameters())
    make_scheduler = build("scheduler", config.scheduler)
    more = {"total_steps": 10} if scheduler in ("onecycle", "cyclic") else {}
    assert (make_scheduler is None) == (scheduler == "none")
    if make_scheduler:
        make_scheduler(optimizer, **more)


@pytest.mark.parametrize("optim", GROUPS["optim"])
def test_every_learning_rate_says_how_it_was_chosen(optim: str):
    line = next(line for line in (CONF / "optim" / f"{optim}.yaml").read_text().splitlines() if line.startswith("lr:"))
    assert "#" in line


@pytest.mark.parametrize("name", GROUPS["trainer"])
def test_every_trainer_is_made(tmp_path: Path, name: str):
    config = composed(f"trainer={name}").trainer
    assert isinstance(build("trainer", config, default_root_dir=str(tmp_path)), lightning.Trainer)


@pytest.mark.parametrize("name", GROUPS["debug"])
def test_every_debug_file_makes_its_trainer(tmp_path: Path, name: str):
    config = composed(f"debug={name}")
    assert config.name == "debug"
    assert isinstance(build("trainer", config.trainer, default_root_dir=str(tmp_path)), lightning.Trainer)


def test_net_sigmoid_is_net_with_another_activation():
    net, sigmoid = (dict(composed(f"model={name}").model) for name in ("net", "net_sigmoid"))
    assert {key for key in net if net[key] != sigmoid[key]} == {"activation"}
