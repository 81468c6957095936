"""docs/cli.md is what `--help` says; run this file as a script to write it again."""

from __future__ import annotations

from pathlib import Path

from typer import Typer
from typer.testing import CliRunner

from talkgs_cli.app import app

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"


def names_in(typer: Typer) -> tuple[str, ...]:
    return tuple(str(getattr(c.callback, "__name__", "")) for c in typer.registered_commands)


COMMANDS = names_in(app)
GROUPS = {
    str(group.typer_instance.info.name): names_in(group.typer_instance)
    for group in app.registered_groups
    if group.typer_instance
}

INTRODUCTION = """\
# Commands

    talkgs --help

The result goes to stdout (the path made, a table, or with `--json` one object), everything else to
stderr. Exit codes and the JSON answers are told in [design.md](design.md).

| variable | what it does |
|---|---|
| `TALKGS_CACHE` | folder for third-party files and compiled kernels |
| `TALKGS_ASSETS_DIR` | folder of your own with third-party files, see [assets.md](assets.md) |
| `TALKGS_ASSETS_REPO` | the same on the Hugging Face Hub |
| `TALKGS_CONFIG` | folder of settings, see [marking.md](marking.md#signing) |
| `TALKGS_FFMPEG` | the ffmpeg program to use |
| `TALKGS_THREADS` | threads of the renderer; else `OMP_NUM_THREADS`, else all cores up to 16 |
| `TALKGS_DEBUG=1` | show tracebacks, and what libraries have to say |
"""


def help_of(*command: str) -> str:
    result = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(
        app, [*command, "--help"], prog_name="talkgs"
    )
    assert result.exit_code == 0
    return "\n".join(line.rstrip() for line in result.stdout.splitlines())


def page() -> str:
    parts = [INTRODUCTION, f"```\n{help_of()}\n```\n"]
    parts += [f"## {name}\n\n```\n{help_of(name)}\n```\n" for name in COMMANDS]
    for group, commands in GROUPS.items():
        parts.append(f"## {group}\n\n```\n{help_of(group)}\n```\n")
        parts += [f"### {group} {name}\n\n```\n{help_of(group, name)}\n```\n" for name in commands]
    return "\n".join(parts)


def test_the_page_of_commands_is_what_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"write it again: python {__file__}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
