"""python -m handwriting.draw [CHECKPOINT]: a page to draw on; a model classifies while you write."""

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

    Exit code 2 if no checkpoint loads, the port is in use, gradio is missing, or the arguments are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.draw",
        description="Serve a page to write characters on, with mouse or finger; a model classifies as you write.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        help="a run's folder, such as outputs/mnist/optim=adam, a checkpoint, or a folder of runs; "
        "the finished runs in outputs/ can be selected on the page",
    )
    parser.add_argument("--port", type=int, default=7860, help="port of the server (default 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: only this computer can open the page")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    with exit_on_bad_input():
        options = parser.parse_args(arguments)
        check_whole("--port", options.port, at_least=1, at_most=65535)
        if not importlib.util.find_spec("gradio"):
            raise UserError("gradio is not installed: pip install 'handwriting[draw]'.")
        serve(gather(options.checkpoint), options.host, options.port, options.open)


def gather(place: Path | None, outputs: Path = OUTPUTS) -> dict[str, Path]:
    """Return the checkpoints by name: those of ``place``, then those of the folders of runs in outputs/.

    The first one is known to load. Damaged ones are omitted with a message on stderr. Raises UserError if none is left,
    or if ``place`` is a single checkpoint that does not load.
    """
    from handwriting.inference.checkpoints import find_checkpoints

    named = find_checkpoints(place) if place else []
    found = list(named)
    studies = {result.parents[1] for depth in ("*/*", "*/*/*") for result in outputs.glob(f"{depth}/result.json")}
    for study in sorted(studies):
        try:
            found += find_checkpoints(study)
        except (UserError, OSError):  # no finished run, or no permission
            continue
    if not found:
        raise UserError(f"{outputs}/ has no finished run: train one (python -m handwriting.run), or give a checkpoint.")
    unique = {path.resolve(): path for path in reversed(found)}
    whole = _leave_out_damaged(sorted(unique.values(), key=found.index), named if len(named) == 1 else [])
    return {_name(path, outputs): path for path in whole}


def _leave_out_damaged(found: list[Path], needed: list[Path]) -> list[Path]:
    """Return the checkpoints whose files are intact, the first of which loads; print which are omitted and why."""
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
        print(f"{reason} It is omitted.", file=sys.stderr)
    return whole


def serve(checkpoints: Mapping[str, Path], host: str, port: int, open_browser: bool) -> None:
    """Serve the page until SIGINT or SIGTERM. Raises UserError if the port is in use."""
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
        print(f"Open {address} (Ctrl-C stops the server).", file=sys.stderr, flush=True)
        ended.wait()
        page.close(verbose=False)


def _name(path: Path, outputs: Path) -> str:
    """Return mnist/optim=adam for the best checkpoint of that run in outputs/, else the path of the file."""
    from handwriting.inference.checkpoints import BEST

    run = path.parent.parent if path.match(BEST) else path
    try:
        return str(run.resolve().relative_to(outputs.resolve()))
    except ValueError:
        return str(run)


if __name__ == "__main__":
    main()
