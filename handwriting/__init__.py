"""Train, compare and plot readers of handwriting: which recipe is best, and is the difference real?"""

__version__ = "0.1.0"
