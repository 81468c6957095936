"""`talkgs fit`: the options of learning a speaker, and how the answer is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from typer import Option

from talkgs_cli import console
from talkgs_cli.commands.answer import already_done_note, finish, quoted
from talkgs_cli.commands.options import (
    TRANSLATOR_FLAG,
    TRANSLATOR_HELP,
    ForceOption,
    JsonOption,
    SpeakerArgument,
)
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import UsageError
from talkgs_cli.speaker import SpeakerFolder

EXAMPLES = examples(
    "talkgs fit",
    "talkgs fit speaker/ --preset draft",
    "talkgs fit speaker/ --minutes 10",
    "talkgs fit presenter --device cuda --seed 7",
)
# Fewer Gaussians and rarer LPIPS take more steps in so little time, and look better for it.
DRAFT_UP_TO_MIN = 2


def fit(
    speaker: SpeakerArgument = None,
    preset: Annotated[
        str | None,
        Option(
            "--preset",
            help="draft: a first look. standard, the default: minutes. fine: more than twice as "
            "long. paper: the paper's settings. cuda-standard, cuda-fine: for a CUDA card.",
        ),
    ] = None,
    device: Annotated[
        str | None, Option("--device", help="auto, cpu or cuda; unless given, the preset's.")
    ] = None,
    seed: Annotated[int | None, Option("--seed", help="Seed of everything random.")] = None,
    minutes: Annotated[
        float | None,
        Option("--minutes", help="Stop optimising after this long; up to 2 it is a draft."),
    ] = None,
    no_inpaint: Annotated[
        bool, Option("--no-inpaint", help="Feather the face's edge; train no network for it.")
    ] = False,
    translator: Annotated[
        str, Option(TRANSLATOR_FLAG, help=f"{TRANSLATOR_HELP} to start from; auto, none.")
    ] = "auto",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn how one speaker looks and moves.

    An interrupted fit continues where it was stopped.
    """
    from talkgs_cli.config import FIT_PRESETS, TranslatorConfig, inpainting_of

    if preset is None:
        hurried = minutes is not None and minutes <= DRAFT_UP_TO_MIN
        preset = "draft" if hurried else "standard"
    if preset not in FIT_PRESETS:
        raise UsageError(
            f"There is no preset {preset!r}.", hint=f"Use one of: {', '.join(FIT_PRESETS)}"
        )
    folder = SpeakerFolder.find(speaker)
    chosen: dict[str, Any] = {"device": device, "seed": seed, "minutes": minutes}
    config = replace(
        FIT_PRESETS[preset], **{name: value for name, value in chosen.items() if value is not None}
    )
    inpainting = None if no_inpaint else inpainting_of(preset, config.seed)
    from talkgs_cli.stages.fit import fit as run

    answer = run(
        folder,
        config,
        console.make_progress(),
        translator_config=TranslatorConfig(translator=translator),
        inpainting_config=inpainting,
        force=force,
    )
    finish(
        answer,
        path=folder.path,
        said=already_done_note(answer),
        next_command=f"talkgs speak {quoted(folder.path)} --audio FILE",
        as_json=as_json,
    )
