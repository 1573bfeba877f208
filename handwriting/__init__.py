"""Train, compare and plot handwriting recognition models: which recipe is best, and is the difference significant?"""

__version__ = "0.1.0"
