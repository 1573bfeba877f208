"""Downloads that happen once, however many processes want the data, and that are whole or not there."""

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
    """Let one process at a time make ``name`` in a folder; the others wait here, and then find it made.

    The system releases the lock of a process that was killed. Raises UserError when the folder cannot be written to.
    """
    lock = FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process is making {folder / name}: waiting for it", flush=True)
            lock.acquire()
    except OSError as error:
        raise not_written(folder / name, error) from error
    try:
        yield
    finally:
        lock.release()


def not_written(file: Path, error: OSError) -> UserError:
    """Return the sentence about a file that could not be written."""
    return UserError(
        f"{file} cannot be written ({error.strerror or error}): free some space, or choose a folder that you may write "
        "to (HANDWRITING_DATA is that of the data sets), or use data=digits, which needs no files."
    )


def download_once(
    root: Path, name: str, wanted: str, is_there: Callable[[], bool], fetch: Callable[[str], object], missing: str
) -> str:
    """Download a data set into the folder ``name`` of ``root``, and return why that failed, or ''.

    ``fetch`` downloads into the folder that it is given, a temporary one. What there matches the pattern ``wanted`` is
    complete, and is renamed into ``root``, file by file or folder by folder: a download that was killed leaves nothing
    there. ``missing`` is said when the download begins. Raises UserError when nothing can be written.
    """
    with one_process(root, name):
        if is_there():
            return ""
        draft = root / f".{name}.download"
        try:
            shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
            draft.mkdir()
            print(missing, flush=True)
            with contextlib.redirect_stdout(io.StringIO()):  # torchvision's list of mirrors that failed
                fetch(str(draft))
            for complete in sorted(draft.glob(wanted)):
                target = root / complete.relative_to(draft)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_dir():
                    complete.replace(target)
        except (OSError, RuntimeError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
                raise not_written(root / name, error) from error
            return " ".join(str(error).split()) or type(error).__name__  # torchvision's has a line for each mirror
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return ""
