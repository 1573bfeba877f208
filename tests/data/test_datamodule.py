from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor

from handwriting.data import DataModule
from handwriting.data.datamodule import EVAL_BATCH
from handwriting.data.dataset import END, HandwritingSet, LabelledImages, Sequences


@pytest.fixture(scope="module")
def whole() -> HandwritingSet:
    """1,200 training images of four classes; the first two pixels say which image it is."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1800, 1, 6, 5), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(1800), 256)
    labels = torch.from_numpy(rng.integers(0, 4, 1800))
    everything = LabelledImages(torch.from_numpy(images), labels)
    order = torch.arange(1800)
    return HandwritingSet(everything[order[:1200]], everything[order[1200:]], tuple("abcd"))


@pytest.fixture
def make(whole):
    def make_module(**settings) -> DataModule:
        return DataModule("made up", lambda: whole, **settings)

    return make_module


def names_of(images: Tensor) -> list[int]:
    return (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1]).tolist()


def test_the_training_set_is_split_and_the_test_set_unchanged(make, whole):
    data = make(val_fraction=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (900, 300, 600)
    assert sorted(names_of(data.train.images) + names_of(data.val.images)) == list(range(1200))
    assert torch.equal(data.test.images, whole.test.images)
    assert torch.equal(data.test.labels, whole.test.labels)
    assert torch.equal(data.val.labels, whole.train.labels[names_of(data.val.images)])
    assert (data.name, data.image_size, data.class_names) == ("made up", (6, 5), tuple("abcd"))


def test_a_path_goes_to_the_loader(whole):
    paths = []
    DataModule("x", lambda path: paths.append(path) or whole, path="somewhere")
    assert paths == ["somewhere"]


@pytest.mark.parametrize("limit", [40, 500, 1080])
def test_a_limit_leaves_the_validation_set_unchanged(make, limit):
    limited, whole = make(limit=limit), make()
    assert len(limited.train) == limit
    assert torch.equal(limited.val.images, whole.val.images)
    assert set(names_of(limited.train.images)) <= set(names_of(whole.train.images))


def test_the_split_depends_on_its_own_seed_alone(make):
    first, shuffled, other = make(), make(shuffle_seed=1), make(split_seed=1)
    assert torch.equal(first.val.images, shuffled.val.images)
    assert set(names_of(first.val.images)) != set(names_of(other.val.images))


def test_mean_and_std_are_those_of_numpy_on_the_training_images(make):
    data = make(val_fraction=0.5, limit=77)
    pixels = data.train.images.numpy() / 255
    assert data.mean_and_std() == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)


def test_loaders_serve_each_split_completely(make):
    data = make(batch_size=64)
    for loader, dataset in (
        (data.train_dataloader(), data.train),
        (data.val_dataloader(), data.val),
        (data.test_dataloader()[0], data.test),
    ):
        assert sorted(names_of(torch.cat([images for images, _ in loader]))) == sorted(names_of(dataset.images))
    assert len(next(iter(data.train_dataloader()))[1]) == 64
    assert len(next(iter(data.test_dataloader()[0]))[1]) == EVAL_BATCH


def test_validation_and_test_keep_their_order_and_training_does_not(make):
    data = make()
    assert torch.equal(torch.cat([labels for _, labels in data.val_dataloader()]), data.val.labels)
    assert torch.equal(torch.cat([labels for _, labels in data.test_dataloader()[0]]), data.test.labels)
    assert not torch.equal(torch.cat([labels for _, labels in data.train_dataloader()]), data.train.labels)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`", "ignore:.*LeafSpec")
def test_lightning_asks_for_a_new_order_each_epoch(make, tmp_path):
    class Recorder(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.served: list[list[int]] = [[], [], []]
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            self.served[self.current_epoch] += names_of(batch[0])
            return self.weight.sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters())

    def served(shuffle_seed: int | None) -> list[list[int]]:
        module = Recorder()
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, datamodule=make(batch_size=200, shuffle_seed=shuffle_seed))
        return module.served

    epochs = served(0) + served(1)
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 6
    assert served(1) == epochs[3:]
    assert len(set(map(tuple, served(None)))) == 1, "unshuffled"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("limit", 1081),
        ("limit", 2),
        ("val_fraction", 0.0001),
    ],
)
def test_a_bad_number_is_refused_and_named(make, setting, value, complaint):
    with complaint(f"data.{setting}={value}"):
        make(**{setting: value})


@pytest.mark.parametrize("setting", ["split_seed", "shuffle_seed"])
def test_the_largest_seed_is_taken(make, setting):
    assert len(list(make(**{setting: 2**32 - 1}).train_dataloader())) == 17


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 4, 4).byte(), torch.zeros(3, 1, 4, 4), torch.zeros(3, 2, 4, 4).byte()]
)
def test_a_loader_that_returns_invalid_images_is_a_bug(images):
    with pytest.raises(ValueError, match="images: uint8"):
        LabelledImages(images, torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("labels", [torch.zeros(2).long(), torch.zeros(3), torch.zeros(3, 1, 1).long()])
def test_a_loader_that_returns_invalid_labels_is_a_bug(labels):
    with pytest.raises(ValueError, match="labels: int64"):
        LabelledImages(torch.zeros(3, 1, 4, 4).byte(), labels)


def test_every_split_is_served_on_the_trainers_device(make):
    data = make(notebook_form=False)
    data.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("meta")), global_rank=0, world_size=1
    )
    loaders = [data.train_dataloader(), data.val_dataloader(), *data.test_dataloader()]
    assert {tensor.device.type for loader in loaders for batch in loader for tensor in batch} == {"meta"}


def numbers(lengths: list[int], seed: int, longest: int = 4) -> LabelledImages:
    """Colour images with as many characters; the first two pixels say which image it is."""
    rng = np.random.default_rng(seed)
    count = len(lengths)
    images = rng.integers(0, 256, (count, 3, 8, 20), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    there = np.arange(longest) < np.array(lengths)[:, None]
    labels = np.where(there, rng.integers(0, 10, there.shape), END)
    boxes = rng.uniform(0, 8, (*there.shape, 4)).astype(np.float32) * there[..., None]
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(boxes))


@pytest.fixture(scope="module")
def street() -> HandwritingSet:
    lengths = [1] * 60 + [2] * 200 + [3] * 90 + [4] * 20
    return HandwritingSet(numbers(lengths, 0), numbers([2] * 30, 1), tuple("0123456789"), photographs=True)


def test_sequences_are_split_by_their_length_and_served_with_their_boxes(street):
    data = DataModule("numbers", lambda: street, val_fraction=0.2, limit=148, batch_size=32)
    assert ((data.val.labels != END).sum(1).bincount()).tolist() == [0, 12, 40, 18, 4]
    assert ((data.train.labels != END).sum(1).bincount()).tolist() == [0, 24, 80, 36, 8]
    for loader, dataset in ((data.train_dataloader(), data.train), (data.test_dataloader()[0], data.test)):
        for images, targets in loader:
            assert isinstance(images, Tensor)
            assert isinstance(targets, Sequences)
            assert targets.boxes is not None
            assert dataset.boxes is not None
            for image, labels, boxes in zip(images, targets.labels, targets.boxes, strict=True):
                row = int((dataset.images == image).flatten(1).all(1).nonzero())
                assert torch.equal(labels, dataset.labels[row])
                assert torch.equal(boxes, dataset.boxes[row])


def test_a_data_set_says_what_it_has(make, street):
    data, plain = DataModule("numbers", lambda: street), make()
    assert (data.photographs, data.is_sequence, data.channels, data.max_length) == (True, True, 3, 4)
    assert (plain.photographs, plain.is_sequence, plain.channels, plain.max_length) == (False, False, 1, 1)


def test_mean_and_std_are_of_all_channels_together(street):
    data = DataModule("numbers", lambda: street)
    pixels = data.train.images.numpy() / 255
    assert data.mean_and_std() == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)


def test_a_draw_of_too_few_sequences_names_the_length(street, complaint):
    with complaint("data.limit=3 takes 3 of 333", "each length, of which there are 4"):
        DataModule("numbers", lambda: street, limit=3)
