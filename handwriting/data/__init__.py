from handwriting.data.module import DataModule

__all__ = ["DataModule"]
