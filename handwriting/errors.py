"""Errors that are the user's to mend: one sentence, no traceback, exit code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's files or settings is wrong; the message says what, and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean …?' with the nearest of the known words, or '' where none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
