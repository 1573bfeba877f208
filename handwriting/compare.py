"""python -m handwriting.compare FOLDER: rebuild the table and the plots of runs that are there already."""

import argparse
import errno
import sys
from pathlib import Path

from rich.console import Console

from handwriting.reports.report import read_report
from handwriting.reports.tables import show_report
from handwriting.utils.errors import exit_on_bad_input
from handwriting.utils.hardware import live_briefly

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def main(arguments: list[str] | None = None) -> None:
    """Read all folders, write the summary and plots of each, print its table; exit code 2 when one has none."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.compare",
        description="Print the table of a folder's runs and what they prove; write its summary and plots.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="as in outputs/mnist")
    parser.add_argument(
        "--against",
        default="",
        metavar="SETTING",
        help="compare the others with this one alone (optim=adam), and not each with each; choose it before you train",
    )
    with exit_on_bad_input():
        asked = parser.parse_args(arguments)
        reports = [read_report(folder, asked.against) for folder in asked.folders]  # all, before anything is written
        for report in reports:
            refused = show_report(report, Console())
            if refused and refused.errno not in READ_ONLY:
                sys.exit(2)


if __name__ == "__main__":
    live_briefly()
    main()
