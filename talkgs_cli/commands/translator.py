"""`talkgs translator`: voice-to-mouth models that many speakers start from, and the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from talkgs_cli import console
from talkgs_cli.commands.answer import finish, quoted
from talkgs_cli.commands.options import ForceOption, JsonOption
from talkgs_cli.config import BaseConfig
from talkgs_cli.console.boundary import examples
from talkgs_cli.runtime import SilentProgress

EXAMPLES = examples(
    "talkgs translator train --synthetic --out translator/",
    "talkgs translator pull OWNER/NAME",
    "talkgs translator push translator/ OWNER/NAME",
)

translator = Typer(
    name="translator",
    help="Train voice-to-mouth models, and share them on the Hugging Face Hub.",
    short_help="Train voice-to-mouth models, and share them on the Hub.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@translator.command(
    epilog=examples(
        "talkgs translator pull OWNER/NAME",
        "talkgs translator pull OWNER/NAME@REVISION",
    )
)
def pull(
    repository: Annotated[
        str, Argument(metavar="REPO[@REV]", help="Hub repository, at a revision or as it is now.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Download a translator, and say its exact revision.

    Afterwards --translator REPO means that revision, offline too.
    """
    from talkgs_cli.stages import share_translator

    answer = share_translator.pull(repository, console.make_progress())
    finish(
        answer,
        path=answer["translator"],
        said=[f"Kept in {answer['folder']}"],
        next_command=f"talkgs fit SPEAKER --translator {quoted(answer['translator'])}",
        as_json=as_json,
    )


@translator.command(epilog=examples("talkgs translator push translator/ OWNER/NAME"))
def push(
    translator: Annotated[
        str, Argument(metavar="TRANSLATOR", help="Folder, or the name of a bundled release.")
    ],
    repository: Annotated[str, Argument(metavar="REPO", help="Hub repository: OWNER/NAME.")],
    private: Annotated[
        bool, Option("--private", help="A repository made by this is private.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload a translator, and print its exact revision.

    Refused unless its card tells data, licence, limits and figures.
    """
    from talkgs_cli.stages import share_translator

    answer = share_translator.push(
        translator, repository, private=private, progress=console.make_progress()
    )
    finish(
        answer,
        path=answer["translator"],
        said=[],
        next_command=f"talkgs fit SPEAKER --translator {quoted(answer['translator'])}",
        as_json=as_json,
    )


@translator.command(
    epilog=examples(
        "talkgs translator train --synthetic --out translator/",
        "talkgs translator train anna/ ben/ --synthetic --out translator/",
    )
)
def train(
    speakers: Annotated[
        list[Path] | None, Argument(metavar="SPEAKERS", help="Prepared speakers to learn from.")
    ] = None,
    synthetic: Annotated[
        bool, Option("--synthetic", help="Learn from synthetic voices (needs flite, espeak-ng).")
    ] = False,
    out: Annotated[Path, Option("--out", help="Folder of the translator.")] = Path("translator"),
    architecture: Annotated[
        str, Option("--architecture", help="conv (small) or paper (transformer).")
    ] = "conv",
    encoder: Annotated[
        str, Option("--encoder", help="Audio encoder whose features it reads.")
    ] = "whisper-tiny.en",
    iterations: Annotated[
        int, Option("--iterations", help="Optimiser steps of a batch each.")
    ] = BaseConfig.iterations,
    parts: Annotated[
        int,
        Option("--parts", min=1, help="Parts of synthetic speech, 7 minutes each."),
    ] = len(BaseConfig.recordings),
    seed: Annotated[int, Option("--seed", help="Seed of everything random.")] = 0,
    hold_out: Annotated[
        list[str] | None,
        Option("--hold-out", help="Voice not to learn from, but to measure on; may be repeated."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a translator for any voice.

    The release that comes with talkgs was made by the first example. On several processes, cards
    or machines: accelerate launch -m talkgs_cli translator train ...
    """
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.stages.train_translator import train_translator_base
    from talkgs_cli.training.processes import accelerator_here, is_main

    config = BaseConfig(
        architecture=architecture,
        encoder=encoder,
        seed=seed,
        recordings=BaseConfig.recordings[:1] * parts,
        iterations=iterations,
        hold_out=tuple(hold_out or ()),
    )
    folders = [SpeakerFolder.open_(path) for path in speakers or []]
    accelerator = accelerator_here()
    main = is_main(accelerator)
    answer = train_translator_base(
        folders,
        out,
        config,
        console.make_progress() if main else SilentProgress(),
        synthetic=synthetic,
        accelerator=accelerator,
        force=force,
    )
    if accelerator is not None:
        accelerator.end_training()
    if not main:
        return
    finish(
        answer,
        path=answer["translator"],
        said=[f"{name}: {value}" for name, value in answer["figures"].items()],
        next_command=f"talkgs fit SPEAKER --translator {quoted(answer['translator'])}",
        as_json=as_json,
    )
