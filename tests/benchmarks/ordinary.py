"""What a student has who does not use this package: the environment as it was given, and a process started in it.

Imported before this process settles how it uses its machine, which its children would inherit.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

ENVIRONMENT = dict(os.environ)


class OrdinaryProcess(ProcessPoolExecutor):
    """A process that stays and waits between its turns."""

    def __init__(self) -> None:
        super().__init__(1, get_context("spawn"))
        with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):
            self.submit(os.getpid).result()

    def side(self, measure: Callable[..., float], *given: object) -> Callable[[], float]:
        """Return what measures there."""
        return lambda: self.submit(measure, *given).result()
