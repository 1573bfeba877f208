"""The process that serves the drawing page: settings before gradio is imported, temporary files, end by a signal."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from handwriting.runs.trust import Trust


def serve(checkpoints: Mapping[str, Path], trust: Trust, host: str, port: int, open_browser: bool) -> None:
    """Serve the page until SIGINT or SIGTERM. Raises UserError if the port is in use."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from handwriting.page.app import make_page  # this and the next: gradio, which reads these variables
        from handwriting.page.server import launch

        page = make_page(checkpoints, trust)
        ended = threading.Event()
        for request in (signal.SIGINT, signal.SIGTERM):
            signal.signal(request, lambda *_: ended.set())
        address = launch(page, host, port, open_browser)
        print(f"Open {address} (Ctrl-C stops the server).", file=sys.stderr, flush=True)
        ended.wait()
        page.close(verbose=False)
