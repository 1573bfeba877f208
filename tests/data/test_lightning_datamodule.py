"""A LightningDataModule as a data set: its images in the order of its data sets, and bad batches in one sentence."""

from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, WeightedRandomSampler, random_split

from handwriting.data.lightning_datamodule import read_datamodule

IMAGES = torch.randint(0, 256, (60, 1, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


class Data(lightning.LightningDataModule):
    """Three loaders of ten images a batch; ``images`` is what the training loader has."""

    def __init__(self, images: torch.Tensor = IMAGES, labels: torch.Tensor = LABELS):
        super().__init__()
        self.images, self.labels, self.calls = images, labels, []

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage: str):
        self.calls.append(stage)

    def loader(self, images: torch.Tensor, labels: torch.Tensor, **more: Any) -> DataLoader:
        return DataLoader(TensorDataset(images, labels), 7, **more)

    def train_dataloader(self) -> Any:
        return self.loader(self.images, self.labels, shuffle=True, drop_last=True)

    def val_dataloader(self) -> Any:
        return self.loader(IMAGES[20:40], LABELS[20:40])

    def test_dataloader(self) -> Any:
        return self.loader(IMAGES[:20] / 255, LABELS[:20])


def test_its_images_are_those_of_its_loaders_in_order():
    data = Data()
    whole = read_datamodule(datamodule=data)
    assert data.calls == ["prepare_data", "fit", "test"]
    assert whole.val is not None
    for split, rows in ((whole.train, slice(60)), (whole.val, slice(20, 40)), (whole.test, slice(20))):
        assert torch.equal(split.images, IMAGES[rows])
        assert torch.equal(split.labels, LABELS[rows])
    assert whole.class_names == ("0", "1", "2")


def test_its_classes_are_named_by_it():
    for attribute in ("classes", "class_names"):
        data = Data()
        setattr(data, attribute, ["a", "b", "c", "d"])
        assert read_datamodule(datamodule=data).class_names == ("a", "b", "c", "d")


def test_without_a_test_loader_a_test_set_is_split_off():
    class Untested(Data):
        test_dataloader = lightning.LightningDataModule.test_dataloader
        val_dataloader = lightning.LightningDataModule.val_dataloader

    whole = read_datamodule(datamodule=Untested(), test_fraction=0.5)
    assert (len(whole.train), len(whole.test), whole.val) == (30, 30, None)


def test_a_random_split_is_the_same_each_time_and_moves_no_random_number():
    class Split(Data):
        def setup(self, stage: str):
            self.parts = random_split(TensorDataset(self.images, self.labels), [40, 20])

        def train_dataloader(self) -> Any:
            return DataLoader(self.parts[0], 7, shuffle=True)

        def val_dataloader(self) -> Any:
            return DataLoader(self.parts[1], 7)

    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(read_datamodule(datamodule=Split()).train.images)
        moved = torch.rand(3)
        torch.manual_seed(seed)
        assert torch.equal(moved, torch.rand(3))
    assert torch.equal(*found)


def test_a_sampler_decides_which_images_there_are():
    class Sampled(Data):
        def train_dataloader(self) -> Any:
            return self.loader(IMAGES, LABELS, sampler=SubsetRandomSampler([5, 3, 9]))

        def val_dataloader(self) -> Any:
            return self.loader(IMAGES, LABELS, sampler=WeightedRandomSampler([1.0] * 60, 12))

    class Batched(Data):
        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(IMAGES, LABELS), batch_sampler=[[4, 2], [6]])

    assert torch.equal(read_datamodule(datamodule=Batched()).train.images, IMAGES[[4, 2, 6]])
    whole = read_datamodule(datamodule=Sampled())
    assert torch.equal(whole.train.images, IMAGES[[3, 5, 9]])
    assert whole.val is not None
    assert len(whole.val) == 12


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"images": (IMAGES / 255 - 0.5) / 0.5},
            ["Data.train_dataloader makes images with values", "leave out Normalize"],
        ),
        ({"images": IMAGES.float()}, ["with values from 0 to 255", "leave out Normalize"]),
        ({"images": IMAGES.int()}, ["images torch.int32 (7, 1, 8, 9): uint8, or floats of 0…1"]),
        ({"images": IMAGES.flatten(1)}, ["images torch.uint8 (7, 72)"]),
        ({"labels": torch.eye(3)[LABELS]}, ["labels torch.float32 (7, 3): whole numbers (N,)"]),
    ],
)
def test_other_batches_are_one_sentence(changed: dict[str, torch.Tensor], words: list[str], complaint: Any):
    with complaint(*words):
        read_datamodule(datamodule=Data(**changed))


def test_other_loaders_are_one_sentence(complaint: Any):
    class Several(Data):
        def val_dataloader(self) -> Any:
            return [super().val_dataloader()] * 2

    class Dicts(Data):
        def train_dataloader(self) -> Any:
            return DataLoader([{"image": IMAGES[0], "label": 0}])  # type: ignore[reportArgumentType]

    with complaint("Several.val_dataloader returns a list of loaders, but one loader is expected"):
        read_datamodule(datamodule=Several())
    with complaint("Dicts.train_dataloader makes batches of type dict: (images, labels)"):
        read_datamodule(datamodule=Dicts())
    with complaint("data.path is not for a LightningDataModule: give Data its path"):
        read_datamodule("folder", datamodule=Data())
    with complaint("data.read.datamodule is a dict, but a LightningDataModule is expected"):
        read_datamodule(datamodule={})
