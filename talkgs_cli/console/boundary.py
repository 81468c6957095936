"""The group of commands as Typer sees it: the place where every failure ends."""

from __future__ import annotations

import shlex
from typing import Any

from typer import Abort, Exit, TyperException
from typer.core import TyperGroup

from talkgs_cli.console.failures import quiet_libraries, report, tell
from talkgs_cli.console.lines import print_json

JSON_FLAG = "--json"


class Commands(TyperGroup):
    """The error boundary: every failure becomes one message, one hint and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember the command line, for messages that repeat it."""
        ctx.obj = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the boundary."""
        command_line: list[str] = ctx.obj or []
        as_json = JSON_FLAG in command_line
        try:
            with quiet_libraries():
                return super().invoke(ctx)
        except (Exit, Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            # What is to be replaced still lies there; only fit has moved it, and would start over.
            dropped = ("--force",) if ctx.invoked_subcommand == "fit" else ()
            words = [word for word in command_line if word not in dropped]
            message = "interrupted; what is finished so far is kept."
            hint = f"Continue with: {shlex.join(['talkgs', *words])}"
            tell("interrupted", message, hint, as_json=as_json)
            raise Exit(130) from None
        except TyperException as error:
            if as_json:
                message = error.format_message()
                print_json({"error": {"kind": "usage", "message": message, "hint": None}})
            raise
        except Exception as error:
            raise Exit(report(error, as_json=as_json)) from error


def examples(*lines: str) -> str:
    """An epilog that keeps its line breaks."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
