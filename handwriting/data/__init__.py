"""Data sets as uint8 tensors: loading, splits, batches, augmentation."""

from handwriting.data.augment import Augmentation
from handwriting.data.datamodule import DataModule
from handwriting.data.dataset import LabelledImages, typical_images

__all__ = ["Augmentation", "DataModule", "LabelledImages", "typical_images"]
