"""Data sets as uint8 tensors: loading, splits, batches, augmentation."""

from typing import TYPE_CHECKING, Any

from handwriting.data.augment import Augmentation
from handwriting.data.dataset import LabelledImages, typical_images

if TYPE_CHECKING:
    from handwriting.data.datamodule import DataModule

__all__ = ["Augmentation", "DataModule", "LabelledImages", "typical_images"]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import, and a prediction needs the photographs of this folder but no DataModule.
    if name != "DataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from handwriting.data.datamodule import DataModule

    return DataModule
