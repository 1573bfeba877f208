"""python -m handwriting.draw [CHECKPOINT]: a page to write on, read by a net while you write."""

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from handwriting.utils.errors import UserError, check_whole, exit_on_bad_input
from handwriting.utils.hardware import use_machine

OUTPUTS = Path("outputs")


def main(arguments: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C or SIGTERM, exit code 0.

    Exit code 2 when no checkpoint loads, the port is taken, gradio is missing, or the arguments are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.draw",
        description="Serve a page on this machine to write on with mouse or finger: a net reads while you write.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        help="a run's folder, as in outputs/mnist/optim=adam, a checkpoint, or a folder of runs; "
        "the finished runs under outputs/ can be chosen in the page",
    )
    parser.add_argument("--port", type=int, default=7860, help="where to serve (default 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: only this machine can open the page")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    with exit_on_bad_input():
        asked = parser.parse_args(arguments)
        check_whole("--port", asked.port, at_least=1, at_most=65535)
        if not importlib.util.find_spec("gradio"):
            raise UserError("gradio is not installed: pip install 'handwriting[draw]'.")
        serve(gather(asked.checkpoint), asked.host, asked.port, asked.open)


def gather(place: Path | None, outputs: Path = OUTPUTS) -> dict[str, Path]:
    """Return the checkpoints to choose from by name: those of ``place``, then those of the studies in outputs/.

    The first one loads. Damaged ones are named on stderr and left out. Raises UserError when none is left, or when
    ``place`` is a single checkpoint that does not load.
    """
    from handwriting.inference.checkpoints import find_checkpoints

    named = find_checkpoints(place) if place else []
    found = list(named)
    studies = {result.parents[1] for depth in ("*/*", "*/*/*") for result in outputs.glob(f"{depth}/result.json")}
    for study in sorted(studies):
        try:
            found += find_checkpoints(study)
        except (UserError, OSError):  # no finished run in it, or not for this user
            continue
    if not found:
        raise UserError(
            f"{outputs}/ holds no finished run: train one (python -m handwriting.run), or name a checkpoint."
        )
    unique = {path.resolve(): path for path in reversed(found)}
    whole = _leave_out_damaged(sorted(unique.values(), key=found.index), named if len(named) == 1 else [])
    return {_name(path, outputs): path for path in whole}


def _leave_out_damaged(found: list[Path], needed: list[Path]) -> list[Path]:
    """Return the checkpoints whose files are whole, beginning with one that loads; print what is left out and why."""
    from handwriting.inference.checkpoints import check_file, load_trained

    whole: list[Path] = []
    reasons: list[UserError] = []
    for path in found:
        try:
            check_file(path) if whole else load_trained(path)
            whole.append(path)
        except UserError as error:
            if path in needed:
                raise
            reasons.append(error)
    if not whole:
        raise reasons[0]
    for reason in reasons:
        print(f"{reason} It is left out.", file=sys.stderr)
    return whole


def serve(checkpoints: Mapping[str, Path], host: str, port: int, open_browser: bool) -> None:
    """Serve the page until Ctrl-C or a request to end; UserError when the port is taken."""
    use_machine()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from handwriting.page.app import make_page
        from handwriting.page.server import launch

        page = make_page(checkpoints)
        ended = threading.Event()
        for request in (signal.SIGINT, signal.SIGTERM):
            signal.signal(request, lambda *_: ended.set())
        address = launch(page, host, port, open_browser)
        print(f"Write at {address} (Ctrl-C ends it).", file=sys.stderr, flush=True)
        ended.wait()
        page.close(verbose=False)


def _name(path: Path, outputs: Path) -> str:
    """Return mnist/optim=adam for the chosen checkpoint of that run under outputs/, else the file's path."""
    from handwriting.inference.checkpoints import BEST

    run = path.parent.parent if path.match(BEST) else path
    try:
        return str(run.resolve().relative_to(outputs.resolve()))
    except ValueError:
        return str(run)


if __name__ == "__main__":
    main()
