"""A user's own data in one file: .npz, .mat or .parquet, by the ending of its name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handwriting.data.arrays import read_npz, read_xy_mat
from handwriting.data.assemble import assemble, number_classes, own_path
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.encoded import decode_images
from handwriting.data.parquet import parquet_files, read_parquet
from handwriting.utils.errors import UserError


def read_file(
    path: str | Path | None = None,
    image_size: Sequence[int] | None = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    test_seed: int = 0,
    class_names: Sequence[object] | None = None,
    photographs: bool = False,
) -> HandwritingSet:
    """Return the images and labels of a .npz, .mat or .parquet file, or of a folder of .parquet files.

    The forms are those of read_npz, read_xy_mat and read_parquet. ``image_size`` and ``channels`` are for .parquet, and
    those of decode_images; arrays stay as they are. ``test_fraction``, ``test_seed`` and ``photographs`` are
    those of assemble, ``class_names`` those of number_classes. Raises UserError for other and for damaged files.
    """
    file = own_path("file", path, "FILE, a .npz, .mat or .parquet file")
    ending = file.suffix.lower()
    if ending == ".parquet" or (file.is_dir() and parquet_files(file)):
        splits, known = _decoded(file, image_size, channels)
        class_names = known if class_names is None else class_names
    elif file.is_dir():
        raise UserError(f"{file} is a folder without .parquet files: of image files, use data=folder.")
    elif ending in (".npz", ".mat"):
        if image_size or channels:
            setting = "image_size" if image_size else "channels"
            raise UserError(
                f"data.{setting} is for .parquet, and {file} has arrays, which stay as they are: leave it out."
            )
        splits = read_npz(file) if ending == ".npz" else read_xy_mat(file)
    else:
        raise UserError(f"{file} does not end in .npz, .mat or .parquet: save your images in one of these forms.")
    labels, names = number_classes(file, {split: some for split, (_, some) in splits.items()}, class_names)
    found = {split: LabelledImages(images, torch.from_numpy(labels[split])) for split, (images, _) in splits.items()}
    return assemble(file, found, names, test_fraction, test_seed, photographs)


def _decoded(
    path: Path, image_size: Sequence[int] | None, channels: int | None
) -> tuple[dict[str, tuple[Tensor, np.ndarray]], tuple[str, ...] | None]:
    rows, names = read_parquet(path)
    images = decode_images(path, [image for split in rows.values() for image in split.images], image_size, channels)
    sizes = [len(split.labels) for split in rows.values()]
    return {split: (some, rows[split].labels) for split, some in zip(rows, images.split(sizes), strict=True)}, names
