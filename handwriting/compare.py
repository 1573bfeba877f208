"""python -m handwriting.compare FOLDER: rebuild the table and the plots of runs that are there already."""

import argparse
import errno
from pathlib import Path

from rich.console import Console

from handwriting.errors import exit_on_bad_input
from handwriting.machine import live_briefly
from handwriting.report import Report, read_report, write_plots
from handwriting.tables import print_report, write_tables

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
            _show(report)


def _show(report: Report) -> None:
    """Write and print a report; a folder that may not be written to is no reason not to print it."""
    error, paths = None, []
    try:
        paths = [*write_tables(report), *write_plots(report)]
    except OSError as refused:
        error = refused
    print_report(report, paths, Console())
    if error and error.errno in READ_ONLY:
        print(f"Nothing was written: {report.folder} cannot be written to ({error.strerror}).")
    elif error:
        with exit_on_bad_input(report.folder):
            raise error


if __name__ == "__main__":
    live_briefly()
    main()
