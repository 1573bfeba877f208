"""python -m handwriting.compare FOLDER: print the table of existing runs and write its files and plots again."""

import argparse
import errno
import sys
from pathlib import Path

from rich.console import Console

from handwriting.reports.comparisons import SMALLEST
from handwriting.reports.report import read_report
from handwriting.reports.tables import show_report
from handwriting.utils.errors import check_number, exit_on_bad_input

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def main(arguments: list[str] | None = None) -> None:
    """Read all folders, write the summary and plots of each, print its table; exit code 2 if one has no runs."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.compare",
        description="Print the table of a folder's runs and which differences are significant; write its files.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a folder of runs, such as outputs/mnist"
    )
    parser.add_argument(
        "--against",
        default="",
        metavar="CONFIGURATION",
        help="compare all others only with this one (optim=adam), not all pairs; choose it before training",
    )
    parser.add_argument(
        "--smallest",
        type=float,
        default=SMALLEST,
        metavar="POINTS",
        help="say how many seeds a difference of so many percentage points would need (default: %(default)s)",
    )
    with exit_on_bad_input():
        parsed = parser.parse_args(arguments)
        check_number("--smallest", parsed.smallest, above=0)
        # All of them, before anything is written.
        reports = [read_report(folder, parsed.against, parsed.smallest) for folder in parsed.folders]
        for report in reports:
            refused = show_report(report, Console(markup=False, emoji=False))
            if refused and refused.errno not in READ_ONLY:
                sys.exit(2)


if __name__ == "__main__":
    main()
