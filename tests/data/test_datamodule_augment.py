"""The data module with augmentation, and with the notebook's four test sets."""

from types import SimpleNamespace
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from handwriting.data import Augmentation, DataModule
from handwriting.data.augment import Mixup, Noise
from handwriting.data.augment_scenes import SceneWarp
from handwriting.data.dataset import HandwritingSet, LabelledImages, Sequences
from handwriting.data.loader import Batches
from handwriting.data.variants import NOTEBOOK, expand


def random_images(count: int, seed: int) -> LabelledImages:
    images = np.random.default_rng(seed).integers(0, 200, (count, 1, 28, 28), np.uint8)
    return LabelledImages(torch.from_numpy(images), torch.arange(count) % 4)


WHOLE = HandwritingSet(random_images(40, 0), random_images(12, 1), tuple("abcd"))


def make(**settings: Any) -> DataModule:
    return DataModule("made up", lambda: WHOLE, **{"val_fraction": 0.2, "batch_size": 8, **settings})


def gathered(loader: Any) -> LabelledImages:
    batches = list(loader)
    return LabelledImages(torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]))


def same(dataset: LabelledImages, other: LabelledImages) -> bool:
    return torch.equal(dataset.images, other.images) and torch.equal(dataset.labels, other.labels)


def whiten(images: Tensor, targets: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    return torch.ones_like(images), targets


@pytest.mark.parametrize("val_fraction", [0, 0.0])
def test_a_fraction_of_0_holds_nothing_out(val_fraction):
    data = make(val_fraction=val_fraction)
    assert len(data.val) == 0
    assert data.val_dataloader() == []
    assert same(data.train, WHOLE.train)
    assert isinstance(make().val_dataloader(), Batches)


def test_a_limit_goes_with_a_fraction_of_0():
    limited = make(val_fraction=0, limit=16)
    assert (len(limited.train), len(limited.val)) == (16, 0)
    assert limited.train.labels.bincount().tolist() == [4] * 4


def test_without_augmentation_training_uses_the_training_set_itself():
    data = make()
    assert data.seen_in_training is data.train


def test_variants_make_what_training_sees_sevenfold_and_nothing_else():
    data, plain = make(augmentation=Augmentation(variants=NOTEBOOK)), make()
    assert (len(data.train), len(data.seen_in_training)) == (32, 224)
    assert same(data.seen_in_training, expand(plain.train, NOTEBOOK))
    assert same(data.train, plain.train)
    assert same(data.val, plain.val)
    assert same(data.test, plain.test)
    assert list(data.test_parts) == ["test"]
    assert data.mean_and_std() == plain.mean_and_std()


def test_an_epoch_of_training_is_of_all_variants_in_a_new_order():
    data = make(augmentation=Augmentation(variants=["original", "smaller"]))
    served = gathered(data.train_dataloader())
    assert not same(served, data.seen_in_training)
    place = {image.numpy().tobytes(): number for number, image in enumerate(data.seen_in_training.images)}
    order = torch.tensor([place[image.numpy().tobytes()] for image in served.images])
    assert sorted(order.tolist()) == list(range(64))
    assert torch.equal(served.labels, data.seen_in_training.labels[order])
    assert same(gathered(data.val_dataloader()), data.val)


def test_only_the_test_set_is_tested_by_default():
    data = make()
    assert list(data.test_parts) == ["test"]
    assert data.test_parts["test"] is WHOLE.test


def test_the_notebooks_test_is_fourfold():
    data = make(notebook_form=True, limit=16, augmentation=Augmentation(variants=["original", "wider"]))
    test_sets = data.test_parts
    assert next(iter(test_sets)) == "test"  # the confusion matrix is of this test set
    assert {name: len(dataset) for name, dataset in test_sets.items()} == {
        "test": 12,
        "train_clean": 16,
        "test_augmented": 7 * 12,
        "train_augmented": 7 * 16,
    }
    assert same(test_sets["test"], WHOLE.test)
    assert same(test_sets["train_clean"], data.train)
    assert same(test_sets["test_augmented"], expand(WHOLE.test, NOTEBOOK))
    assert same(test_sets["train_augmented"], expand(data.train, NOTEBOOK))


@pytest.mark.parametrize("notebook_form", [False, True])
def test_each_test_set_has_its_loader_and_keeps_its_order(notebook_form):
    data = make(notebook_form=notebook_form)
    loaders = data.test_dataloader()
    assert len(loaders) == (4 if notebook_form else 1)
    assert all(
        same(gathered(loader), dataset) for loader, dataset in zip(loaders, data.test_parts.values(), strict=True)
    )


def transfer(data: DataModule, epoch: int, training: bool = True, batch: int = 0) -> tuple[Tensor, Tensor]:
    """Return a batch of the training set after its transfer to the device, in a training of 10 epochs."""
    data.trainer = cast(Any, SimpleNamespace(training=training, current_epoch=epoch, max_epochs=10, global_rank=0))
    chosen = data.train[torch.arange(batch * 8, batch * 8 + 8)]
    return data.on_after_batch_transfer((chosen.images, chosen.labels), 0)


def noisy(**settings: Any) -> DataModule:
    return make(augmentation=Augmentation(steps={"noise": Noise(probability=1, deviation=0.5)}, **settings))


@pytest.mark.parametrize(("clean_epochs", "varied"), [(0, 10), (1, 9), (4, 6), (10, 0), (25, 0)])
def test_all_but_the_last_epochs_are_augmented(clean_epochs, varied):
    data = noisy(clean_epochs=clean_epochs)
    before = data.train.images[:8].clone()
    changed = [not torch.equal(transfer(data, epoch)[0], before) for epoch in range(10)]
    assert changed == [True] * varied + [False] * (10 - varied)
    assert torch.equal(data.train.images[:8], before)


def test_validation_and_test_are_never_augmented():
    data = noisy()
    assert torch.equal(transfer(data, 0, training=False)[0], data.train.images[:8])


def test_the_same_epoch_gives_a_fresh_module_the_same_images():
    def two_batches(epoch: int, seed: int) -> list[Tensor]:
        data = noisy(seed=seed)
        return [transfer(data, epoch, batch=batch)[0] for batch in (0, 0, 1)]

    first = two_batches(3, 0)
    assert all(map(torch.equal, first, two_batches(3, 0)))
    assert not torch.equal(first[0], first[1])  # the random generator continues within an epoch
    assert not torch.equal(first[0], two_batches(4, 0)[0])
    assert not torch.equal(first[0], two_batches(3, 1)[0])


def test_mixed_labels_are_soft_targets():
    data = make(augmentation=Augmentation(steps={"mixup": Mixup(alpha=1)}))
    images, shares = transfer(data, 0)
    assert (images.dtype, images.shape) == (torch.uint8, (8, 1, 28, 28))
    assert shares.shape == (8, 4)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    assert torch.equal(transfer(data, 0, training=False)[1], data.train.labels[:8])


def test_boxes_of_a_training_batch_move_with_its_images():
    data = make(augmentation=Augmentation(steps={"warp": SceneWarp(degrees=10, shift=0.2)}))
    transfer(data, 0)  # gives the module its trainer
    targets = Sequences(torch.tensor([[1, 2]] * 8), torch.tensor([[[2.0, 4, 10, 20], [14, 5, 22, 21]]] * 8))
    images, moved = data.on_after_batch_transfer((data.train.images[:8], targets), 0)
    assert images.dtype == torch.uint8
    assert not torch.equal(images, data.train.images[:8])
    assert torch.equal(moved.labels, targets.labels)
    assert ((moved.boxes - targets.boxes).abs().amax((1, 2)) > 0.1).all()
    trainer: Any = data.trainer
    trainer.training = False
    assert data.on_after_batch_transfer((images, targets), 0)[1] is targets


@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers")
def test_lightning_augments_training_batches_and_no_others(tmp_path):
    class Recorder(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.seen: list[tuple[str, int, bool]] = []
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def look(self, batch: list[Tensor], stage: str) -> None:
            self.seen.append((stage, self.current_epoch, bool((batch[0] == 255).all())))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            self.look(batch, "train")
            return self.weight.sum()

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.look(batch, "val")

        def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.look(batch, "test")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters())

    data = make(augmentation=Augmentation(steps={"whiten": whiten}, clean_epochs=1), batch_size=16)
    module = Recorder()
    switched_off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = dict.fromkeys(switched_off, False)
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    epochs = [[("train", epoch, epoch < 2)] * 2 + [("val", epoch, False)] for epoch in range(3)]
    assert module.seen[:1] == [("val", 0, False)]  # Lightning's sanity check before training
    assert module.seen[1:-1] == [row for epoch in epochs for row in epoch]
    assert [(stage, white) for stage, _, white in module.seen[-1:]] == [("test", False)]


@pytest.mark.parametrize("path", [None, "somewhere"])
def test_further_settings_go_to_the_loader(path):
    calls = []

    def read(*place: str, **further: Any) -> HandwritingSet:
        calls.append((place, further))
        return WHOLE

    DataModule("made up", read, path=path, val_fraction=0.2, redundant="drop", groups=[[0, 81]])
    assert calls == [((path,) if path else (), {"redundant": "drop", "groups": [[0, 81]]})]
