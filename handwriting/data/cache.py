"""The user's cache: what takes long to make from the files of a data set is made once. Imports no torch."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from handwriting.data.downloads import one_process
from handwriting.utils.errors import UserError
from handwriting.utils.files import atomic

Made = TypeVar("Made")


def cache_root() -> Path:
    """Return the folder of the cache: ``HANDWRITING_CACHE``, else one in the user's home. It may be deleted."""
    root = os.environ.get("HANDWRITING_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "handwriting"


def cached(
    name: str,
    make: Callable[[], Made],
    save: Callable[[BinaryIO, Made], object],
    load: Callable[[Path], Made],
) -> Made:
    """Return what the file ``name`` of the cache holds; if it is absent or damaged, it is made and saved.

    One process makes it, and others wait for it. If the cache is not writable, or the disk is full, it is made each
    time. ``load`` raises ValueError or EOFError for a damaged file.
    """
    file = cache_root() / name

    def loaded() -> Made | None:
        try:
            return load(file)
        except (OSError, ValueError, EOFError):
            return None

    if (found := loaded()) is not None:
        return found
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(one_process(file.parent, file.name))
        except UserError:  # not writable
            return make()
        if (found := loaded()) is not None:  # another process made it
            return found
        made = make()
        with contextlib.suppress(OSError):
            with atomic(file) as draft:
                save(draft, made)
            found = loaded()
        return made if found is None else found
