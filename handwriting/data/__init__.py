"""Data sets as uint8 tensors: loading, splits, batches, augmentation.

What is exported is imported at its first use: predictions need some modules only, and Lightning takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handwriting.data.augment import Augmentation
    from handwriting.data.datamodule import DataModule
    from handwriting.data.dataset import LabelledImages, typical_images

__all__ = ["Augmentation", "DataModule", "LabelledImages", "typical_images"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"Augmentation": "augment", "DataModule": "datamodule"}.get(name, "dataset")
    return getattr(import_module(f"{__name__}.{module}"), name)
