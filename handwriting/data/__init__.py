from handwriting.data.augment import Augmentation
from handwriting.data.module import DataModule
from handwriting.data.sets import LabelledImages, typical_images

__all__ = ["Augmentation", "DataModule", "LabelledImages", "typical_images"]
