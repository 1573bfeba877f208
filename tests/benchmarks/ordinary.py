"""The environment without this package's settings, and a process started in it.

Import this before the process changes its environment, which child processes would inherit.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

ENVIRONMENT = dict(os.environ)


class OrdinaryProcess(ProcessPoolExecutor):
    """A process that stays alive and waits between its turns."""

    def __init__(self) -> None:
        super().__init__(1, get_context("spawn"))
        with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):
            self.submit(os.getpid).result()

    def side(self, measure: Callable[..., float], *given: object) -> Callable[[], float]:
        """Return a function that measures in this process."""
        return lambda: self.submit(measure, *given).result()
