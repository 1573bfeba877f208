"""Errors without a traceback: one sentence says what is wrong and, if the user can fix it, what to do."""

import contextlib
import difflib
import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Container, Iterable, Iterator
from math import inf
from pathlib import Path

# How the names of files begin whose code is not the user's.
NOT_THE_USERS = (f"{Path(__file__).parents[1]}{os.sep}", f"{sysconfig.get_path('stdlib')}{os.sep}", "<")
LARGEST_SEED = 2**32 - 1  # NumPy's limit, which draws the splits


class UserError(Exception):
    """Something in the user's files or settings is wrong; the message says what, and what to do."""


class DivergedError(Exception):
    """The training loss became NaN or infinite; the message says where."""


class JobError(Exception):
    """A job failed; the message is its reason, and the details are already logged."""


def check_whole(setting: str, value: object, at_least: int, at_most: float = inf) -> None:
    """Raise UserError unless the value of a setting is a whole number between the limits, both included."""
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
        limits = f"of at least {at_least}" if at_most == inf else f"from {at_least} to {at_most}"
        raise UserError(f"{setting}={value} must be a whole number {limits}.")


def is_number(value: object) -> bool:
    """Return whether the value of a setting is a number; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_number(
    setting: str,
    value: object,
    at_least: float = -inf,
    at_most: float = inf,
    above: float = -inf,
    below: float = inf,
) -> None:
    """Raise UserError unless the value of a setting is a finite number within the limits.

    ``above`` and ``below`` are exclusive limits.
    """
    if not (is_number(value) and at_least <= value <= at_most and above < value < below and abs(value) < inf):  # type: ignore[operator]
        limits = [f"at least {at_least:g}"] * (at_least > -inf) + [f"at most {at_most:g}"] * (at_most < inf)
        limits += [f"above {above:g}"] * (above > -inf) + [f"below {below:g}"] * (below < inf)
        limits = limits or ["not infinite"] * is_number(value)
        raise UserError(f"{setting}={value} must be a number, {' and '.join(limits)}".removesuffix(", ") + ".")


def place_of(error: BaseException, own: Container[str] = ()) -> str:
    """Return the last line of the user's code in the traceback of an error, such as ``mynet.py, line 8``, or ''.

    The user's code is that of the modules ``own``, and all that is neither of this package, nor of Python, nor
    installed.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__")).partition(".")[0]
        installed = not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
        if module in own or not (installed or file.startswith(NOT_THE_USERS)):
            return f"{Path(file).name}, line {line}"
    return ""


def describe(error: BaseException, own: Container[str] = ()) -> str:
    """Return an error in one line, with its type and place if it is of the user's code, as place_of tells."""
    text, place = " ".join(str(error).split()).rstrip("."), place_of(error, own)
    return f"{type(error).__name__}: {text} ({place})" if place else text


@contextlib.contextmanager
def naming_the_line(what: str) -> Iterator[None]:
    """Turn an error of the user's code into a UserError about ``what`` that names the line; others pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if place_of(error):
            raise UserError(f"{what}: {describe(error)}.") from error
        raise


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean …?' with the most similar known word, or '' if none is similar."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def folders_beside(missing: Path) -> str:
    """Return ' In … there are …' with up to three similar folders beside a missing one, or ''; most similar first."""
    parent = missing.parent
    if parent == Path() or not parent.is_dir():  # the current directory contains more than runs
        return ""
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(missing.name, sorted(names), n=3, cutoff=0)
    rest = " and others" if len(names) > len(near) else ""
    return f" In {parent} there {'is' if len(names) == 1 else 'are'} {', '.join(near)}{rest}." if near else ""


def make_stdout_safe() -> None:
    """Let stdout write ? for characters that its encoding lacks, such as ± in ASCII. Every command calls it."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # false in a notebook, or if stdout is closed
        sys.stdout.reconfigure(errors="replace")


@contextlib.contextmanager
def exit_on_bad_input(file: object = "A file") -> Iterator[None]:
    """Exit with code 2 and one sentence for a UserError or a file that cannot be read or written.

    So too where stdout cannot be written (a full disk); where its reader has gone (``| head -1``), with 1 and nothing.
    """
    make_stdout_safe()
    try:
        try:
            yield
        finally:  # here: at Python's exit an error could not be caught; --help ends with SystemExit
            if sys.stdout:
                sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if not is_of_stdout(error):
            print(f"{error.filename or file} cannot be read or written: {error.strerror}.", file=sys.stderr)
        elif isinstance(error, BrokenPipeError):
            sys.exit(1)
        else:
            print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        sys.exit(2)


def is_of_stdout(error: OSError) -> bool:
    """Return whether an error came from writing to stdout; later output is discarded."""
    if error.filename is not None or not sys.stdout:
        return False
    try:
        print(flush=True)  # the failed text may have left the buffer, so new text is needed
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
