"""python -m handwriting.draw [CHECKPOINT]: a page to draw on; a model classifies while you write."""

import argparse
import importlib.util
from pathlib import Path

from handwriting.runs.trust import add_options, trust_of
from handwriting.utils.errors import UserError, check_whole, exit_on_bad_input
from handwriting.utils.hardware import use_machine


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
    add_options(parser)
    with exit_on_bad_input():
        options = parser.parse_args(arguments)
        check_whole("--port", options.port, at_least=1, at_most=65535)
        trust = trust_of(options)
        if not importlib.util.find_spec("gradio"):
            raise UserError("gradio is not installed: pip install 'handwriting[draw]'.")
        use_machine()
        from handwriting.page.checkpoints import gather
        from handwriting.page.process import serve

        serve(gather(options.checkpoint, trust), trust, options.host, options.port, options.open)


if __name__ == "__main__":
    main()
