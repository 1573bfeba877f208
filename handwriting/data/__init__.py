from handwriting.data.augment import Augmentation
from handwriting.data.module import DataModule
from handwriting.data.sets import LabelledImages

__all__ = ["Augmentation", "DataModule", "LabelledImages"]
