import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torch.nn import functional as F

from handwriting.data import DataModule
from handwriting.data.digits import read_digits
from handwriting.models.net import Net
from handwriting.training.fit import fit_and_test
from handwriting.training.module import Classifier
from handwriting.training.optim import Muon
from handwriting.utils.errors import UserError
from handwriting.utils.metrics import Tally

SGD = partial(torch.optim.SGD, lr=0.1)


def digits(limit: int | None = 320, batch_size: int = 32) -> DataModule:
    return DataModule("digits", read_digits, batch_size=batch_size, limit=limit, shuffle_seed=3)


def trainer(
    tmp_path: Path, epochs: int = 1, callbacks: list[lightning.Callback] | None = None, precision: Any = "32-true"
) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        precision=precision,
        accelerator="cpu",
        default_root_dir=str(tmp_path),
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks or []),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def classifier(data: DataModule, optimizer=SGD, scheduler=None) -> Classifier:
    torch.manual_seed(0)
    mean, std = data.mean_and_std()
    return Classifier(Net(), optimizer, scheduler, 10, mean, std)


OPTIMIZERS = [
    SGD,
    partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    partial(torch.optim.Adam, lr=0.001),
    partial(Muon, lr=0.001),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_epochs_give_the_weights_of_a_plain_torch_loop(tmp_path: Path, optimizer: partial):
    data = digits()
    model = classifier(data, optimizer)
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer(tmp_path, epochs=2).fit(model, data)

    mean, std = data.mean_and_std()
    plain, order = optimizer(net.parameters()), data.train_dataloader().batch_sampler
    for epoch in range(2):
        order.set_epoch(epoch)  # type: ignore[attr-defined]
        for index in order:
            pixels = (data.train.images[index].float() / 255 - mean) / std
            loss = F.cross_entropy(net(pixels), data.train.labels[index])
            plain.zero_grad()
            loss.backward()
            plain.step()
    for ours, theirs in zip(model.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_loss_and_accuracy_are_means_over_images_not_over_batches():
    torch.manual_seed(0)
    logits, labels = torch.randn(10, 3), torch.randint(0, 3, (10,))
    tally = Tally()
    for part in (slice(0, 7), slice(7, 10)):  # batches of unequal size
        tally.add(
            len(labels[part]),
            F.cross_entropy(logits[part], labels[part]),
            tally.count_correct(logits[part], labels[part]),
        )
    loss, accuracy = tally.means().values()
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item())
    assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_the_five_likeliest_are_counted_where_there_are_enough_classes():
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 11), torch.randint(0, 11, (40,))
    tally = Tally((1, 5))
    for part in (slice(0, 33), slice(33, 40)):
        tally.add(
            len(labels[part]),
            F.cross_entropy(logits[part], labels[part]),
            tally.count_correct(logits[part], labels[part]),
        )
    means = tally.means()
    assert means["acc"] == pytest.approx(top_k_accuracy_score(labels, logits, k=1, labels=range(11)))
    assert means["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(11)))


def test_training_uses_the_loss_given_and_validation_the_cross_entropy(tmp_path: Path):
    data = digits(batch_size=320)
    model = classifier(data, partial(torch.optim.SGD, lr=0.0))
    model.loss = nn.CrossEntropyLoss(label_smoothing=0.5)
    trainer(tmp_path).fit(model, data)
    with torch.no_grad():
        model.eval()
        train, val = model(data.train.images), model(data.val.images)
    assert model.history[0]["train/loss"] == pytest.approx(
        F.cross_entropy(train, data.train.labels, label_smoothing=0.5).item(), abs=1e-5
    )
    assert model.history[0]["val/loss"] == pytest.approx(F.cross_entropy(val, data.val.labels).item(), abs=1e-5)


def test_mixed_labels_train_and_the_largest_soft_target_is_the_label():
    model = Classifier(nn.Flatten(), SGD, num_classes=4)  # 2×2 images are their own logits
    images = torch.tensor([[9, 0, 0, 0], [0, 9, 0, 0]], dtype=torch.uint8).reshape(2, 1, 2, 2)
    shares = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]])
    loss = model.training_step((images, shares), 0)
    expected = -(shares * (images.flatten(1) / 255).log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item())
    assert model.tally["train"].means()["acc"] == 0.5


def test_each_branch_of_a_net_has_its_loss_and_their_mean_is_counted():
    class Branches(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.stack([pixels.flatten(1), -3 * pixels.flatten(1)])

    model = Classifier(Branches(), SGD, num_classes=4)
    images = torch.randint(0, 256, (6, 1, 2, 2), dtype=torch.uint8)
    labels, pixels = torch.tensor([0, 1, 2, 3, 0, 1]), images.flatten(1) / 255
    loss = model.training_step((images, labels), 0)
    each = [F.cross_entropy(pixels, labels), F.cross_entropy(-3 * pixels, labels)]
    assert loss.item() == pytest.approx(sum(each).item() / 2)  # type: ignore[union-attr]
    assert model.tally["train"].means()["acc"] == pytest.approx((pixels.argmin(1) == labels).float().mean().item())


def test_a_model_trained_in_bf16_is_evaluated_in_full_precision(tmp_path: Path):
    data = digits()
    model = classifier(data)
    losses: list[torch.Tensor] = []
    model.loss.register_forward_hook(lambda module, seen, loss: losses.append(loss.detach()))
    metrics = fit_and_test(data, model, trainer(tmp_path, precision="bf16-mixed"))["metrics"]
    for name, part in (("val", data.val), ("test", data.test)):
        with torch.inference_mode():
            logits = model.eval()(part.images)
        assert metrics[f"{name}/loss"] == pytest.approx(F.cross_entropy(logits, part.labels).item(), rel=1e-5)
        assert metrics[f"{name}/acc"] == pytest.approx((logits.argmax(1) == part.labels).float().mean().item())
    rounded = [bool(loss == loss.bfloat16()) for loss in losses]
    assert len(rounded) == len(data.train) // 32
    assert not all(rounded)


def test_without_held_out_images_the_last_weights_are_tested(tmp_path: Path):
    data = DataModule("digits", read_digits, batch_size=32, limit=320, val_fraction=0)
    model = classifier(data)
    last = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="best")
    outcome = fit_and_test(data, model, trainer(tmp_path, 2, [last]))
    assert outcome["chosen_epoch"] == outcome["epochs"] == 2
    assert outcome["images"] == {"train": 320, "val": 0, "test": 500}
    assert not any(name.startswith("val/") for name in outcome["metrics"])
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    for name, weight in model.state_dict().items():
        if name in saved["state_dict"]:
            assert torch.equal(saved["state_dict"][name], weight)


def test_accumulated_batches_give_one_loss_a_step_which_is_their_mean(tmp_path: Path):
    data = digits()  # ten batches of 32: steps of 3, 3, 3 and 1
    model = classifier(data, partial(torch.optim.SGD, lr=0.0))
    losses: list[float] = []
    model.loss.register_forward_hook(lambda module, seen, loss: losses.append(loss.item()))
    fitted = trainer(tmp_path, epochs=2)
    fitted.accumulate_grad_batches, fitted.log_every_n_steps = 3, 2  # type: ignore[attr-defined]
    fitted.loggers = [CSVLogger(tmp_path, name="", version="")]
    fitted.fit(model, data)
    rows = pd.read_csv(tmp_path / "metrics.csv").dropna(subset=["train/loss_step"])
    assert rows["step"].tolist() == [2, 4, 6, 8]
    means = [sum(part) / len(part) for part in (losses[:6], losses[6:10], losses[10:16], losses[16:])]
    assert rows["train/loss_step"].tolist() == pytest.approx(means)


@pytest.mark.parametrize("metric", ["val/acc", "val/loss"])
def test_the_better_epoch_is_kept_whichever_metric_is_monitored(main, tmp_path: Path, metric: str):
    explodes = ("scheduler=step", "scheduler.step_size=1", "scheduler.gamma=1000", "trainer.max_epochs=3")
    assert main("data=digits", "data.limit=100", *explodes, f"monitor.metric={metric}").code == 0
    (path,) = tmp_path.glob("outputs/digits/*/result.json")
    assert json.loads(path.read_text())["chosen_epoch"] == 1


def test_the_chosen_weights_are_tested_not_the_last(tmp_path: Path):
    data = digits()
    # The learning rate explodes after the first epoch, so that the last weights are useless.
    scheduler = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1.0 if epoch == 0 else 1e4)
    model = classifier(data, partial(torch.optim.SGD, lr=0.05), scheduler)
    best = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="best", monitor="val/acc", mode="max")
    outcome = fit_and_test(data, model, trainer(tmp_path, 3, [best]))
    assert outcome["chosen_epoch"] == 1
    assert outcome["epochs"] == 3
    metrics = outcome["metrics"]
    assert metrics["val/acc"] == pytest.approx(model.history[0]["val/acc"])
    assert metrics["test/acc"] > 0.3
    assert model.history[-1]["val/acc"] < 0.2
    with torch.no_grad():
        model.eval()
        right = (model(data.test.images).argmax(1) == data.test.labels).float().mean().item()
    assert metrics["test/acc"] == pytest.approx(right)


def test_a_checkpoint_loads_as_plain_tensors_and_carries_its_facts(tmp_path: Path):
    data = digits(limit=100)
    model = classifier(data)
    model.facts = {"class_names": list(data.class_names), "settings": {"optim": {"lr": 0.1}}}
    fitted = trainer(tmp_path)
    fitted.fit(model, data)
    fitted.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert checkpoint["handwriting"] == model.facts
    other = classifier(data)
    other.load_state_dict(checkpoint["state_dict"])
    torch.testing.assert_close(other(data.test.images), model(data.test.images))


def test_the_net_sees_images_of_mean_0_and_deviation_1():
    data = digits(limit=None)
    model = classifier(data)
    seen = []
    model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(data.train.images)
    assert seen[0].mean().item() == pytest.approx(0, abs=1e-4)
    assert seen[0].std().item() == pytest.approx(1, abs=1e-3)


class RateOfEachStep(lightning.Callback):
    def __init__(self):
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("scheduler", "steps_between"),
    [
        (partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, cycle_momentum=False), 1),
        (partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2), 10),
        (partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5), 10),
    ],
)
def test_the_rate_of_each_step_is_that_of_torch_alone(tmp_path: Path, scheduler: partial, steps_between: int):
    data, record = digits(limit=320, batch_size=32), RateOfEachStep()
    trainer(tmp_path, 2, [record]).fit(classifier(data, scheduler=scheduler), data)

    plain = SGD(nn.Linear(1, 1).parameters())
    alone = scheduler(plain, **({"total_steps": 20} if steps_between == 1 else {}))
    expected = []
    for step in range(1, 21):
        expected.append(plain.param_groups[0]["lr"])
        plain.step()
        if step % steps_between == 0:
            alone.step()
    assert record.rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "sentence"),
    [
        (partial(torch.optim.SGD, lr=-1), None, "optim: Invalid learning rate: -1."),
        (partial(torch.optim.SGD, **{"foo": 1}), None, "optim: a setting has an unknown name or a wrong type"),
        (
            partial(torch.optim.SGD, lr=1),
            partial(torch.optim.lr_scheduler.StepLR, **{"foo": 1}),
            "scheduler: a setting",
        ),
        (
            partial(torch.optim.Adagrad, lr=1),
            partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0),
            "scheduler: .*momentum",
        ),
    ],
)
def test_impossible_settings_are_named(tmp_path: Path, optimizer, scheduler, sentence: str):
    data = digits(limit=100)
    with pytest.raises(UserError, match=sentence):
        trainer(tmp_path).fit(classifier(data, optimizer, scheduler), data)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path):
    data = digits(limit=100)
    weights = []
    for _ in range(2):
        model = classifier(data)
        trainer(tmp_path).fit(model, data)
        weights.append(torch.cat([weight.flatten() for weight in model.parameters()]))
    assert torch.equal(*weights)


def test_no_step_waits_for_a_value(monkeypatch: pytest.MonkeyPatch):
    # A tensor of the device "meta" has no values: to ask for one, as a wait for a GPU does, is an error.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no such device
    model = Classifier(Net(), partial(torch.optim.Adam, lr=0.1)).to("meta")
    optimizer = torch.optim.Adam(model.parameters())
    images = torch.empty(8, 1, 28, 28, dtype=torch.uint8, device="meta")
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    for _ in range(2):
        model.training_step((images, labels), 0).backward()
        optimizer.step()
    model.validation_step((images, labels), 0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        model.tally["train"].means()
