"""Downloads: once for all processes, and atomic."""

import contextlib
import errno
import io
import shutil
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock, Timeout

from handwriting.utils.errors import UserError

NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def one_process(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time create ``name`` in a folder; the others wait here until it exists.

    The system releases the lock of a process that was killed. Raises UserError if the folder is not writable.
    """
    lock = FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that creates {folder / name}", flush=True)
            lock.acquire()
    except OSError as error:
        raise not_written(folder / name, error) from error
    try:
        yield
    finally:
        lock.release()


def not_written(file: Path, error: OSError) -> UserError:
    """Return the error for a file that could not be written."""
    return UserError(
        f"{file} cannot be written ({error.strerror or error}): free some space, choose a writable folder "
        "(HANDWRITING_DATA sets the folder of the data sets), or use data=digits, which needs no files."
    )


def download_once(
    root: Path, name: str, wanted: str, is_there: Callable[[], bool], fetch: Callable[[str], object], missing: str
) -> str:
    """Download a data set into the folder ``name`` of ``root``, and return why that failed, or ''.

    ``fetch`` downloads into a temporary folder. Files and folders there that match the pattern ``wanted`` are complete
    and are moved into ``root``; a killed download leaves nothing in ``root``. ``missing`` is printed before the
    download. Raises UserError if nothing can be written.
    """
    with one_process(root, name):
        if is_there():
            return ""
        draft = root / f".{name}.download"
        try:
            shutil.rmtree(draft, ignore_errors=True)  # from a killed process
            draft.mkdir()
            print(missing, flush=True)
            with contextlib.redirect_stdout(io.StringIO()):  # torchvision lists the mirrors that failed
                fetch(str(draft))
            for complete in sorted(draft.glob(wanted)):
                target = root / complete.relative_to(draft)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_dir():
                    complete.replace(target)
        except (OSError, RuntimeError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
                raise not_written(root / name, error) from error
            return (
                " ".join(str(error).split()) or type(error).__name__
            )  # torchvision's message has a line for each mirror
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return ""
