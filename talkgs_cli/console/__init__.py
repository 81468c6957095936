"""What the user sees: progress and messages on stderr, results on stdout. It runs no stage.

This package, `commands` and `app` are the only ones that know Rich and Typer.
"""

from talkgs_cli.console.failures import quiet_libraries, report, tell
from talkgs_cli.console.lines import print_error, print_json, print_result
from talkgs_cli.console.progress import make_progress
from talkgs_cli.console.tables import print_assets, print_bench, print_doctor, print_score

__all__ = [
    "make_progress",
    "print_assets",
    "print_bench",
    "print_doctor",
    "print_error",
    "print_json",
    "print_result",
    "print_score",
    "quiet_libraries",
    "report",
    "tell",
]
