"""Scores several speakers, or several videos against references, for one table and one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.networks.syncnet import load_syncnet
from talkgs_cli.runtime import Progress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import score as held_out
from talkgs_cli.stages.score_field import PROTOCOL as FIELD_PROTOCOL
from talkgs_cli.stages.score_field import score_as_field
from talkgs_cli.stages.score_pair import score_videos
from talkgs_cli.stages.score_report import System, write_score_report
from talkgs_cli.stages.score_sync import add_sync
from talkgs_cli.stages.score_table import compared, lead_row


def score_speakers(
    speakers: Sequence[SpeakerFolder], config: ScoreConfig, progress: Progress
) -> list[System]:
    """Score each on its own held-out frames."""
    names = _distinct([speaker.path for speaker in speakers])
    return [
        System(name, held_out.score(speaker, config, progress), held_out.evidence_of(speaker))
        for name, speaker in zip(names, speakers, strict=True)
    ]


def score_pairs(
    generated: Sequence[Path],
    references: Sequence[Path],
    config: ScoreConfig,
    progress: Progress,
    *,
    as_field: bool = False,
    syncnet: Path | None = None,
) -> list[System]:
    """Score videos against one reference, or each against its own.

    Args:
        generated: Made videos.
        references: One, or as many as `generated`.
        config: How.
        progress: Where to say how far it is.
        as_field: By the ER-NeRF family's meters instead of our protocol.
        syncnet: The user's weights, for LSE-C and LSE-D; None: without.

    Raises:
        UsageError: another number of references.
    """
    if len(references) not in (1, len(generated)):
        raise UsageError(
            f"{len(generated)} made videos and {len(references)} references.",
            hint="Give one --reference for all, or one for each --generated.",
        )
    network = load_syncnet(syncnet) if syncnet else None
    paired = list(references) * (len(generated) if len(references) == 1 else 1)
    systems = []
    for name, made, real in zip(_distinct(generated), generated, paired, strict=True):
        if as_field:
            system = System(name, score_as_field(made, real, config, progress), None)
        else:
            scored = score_videos(made, real, config, progress)
            system = System(name, scored.answer, scored.evidence)
        if network is not None:
            most = 0 if as_field else config.max_frames
            add_sync(system.answer, made, real, network, most, progress)
        systems.append(system)
    return systems


def answer_of(systems: Sequence[System], report: Path | None) -> dict[str, Any]:
    """One answer: the only system's, or all of them with a table; writes the page if asked."""
    if report is not None:
        write_score_report(report, systems)
    where = {} if report is None else {"report": str(report)}
    if len(systems) == 1:
        return {**systems[0].answer, **where}
    named = [(system.name, system.answer) for system in systems]
    columns = compared(named)
    table = [
        {
            "system": name,
            "row": lead_row(answer),
            **{title: values[k] for title, values, _ in columns},
        }
        for k, (name, answer) in enumerate(named)
    ]
    protocols = sorted({answer["protocol"] for _, answer in named})
    return {
        "protocol": ", ".join(protocols),
        "comparison": table,
        "systems": [{"name": name, **answer} for name, answer in named],
        "report": None,
        **where,
    }


def _distinct(paths: Sequence[Path]) -> list[str]:
    """A short name for each: the file's or folder's, the whole path where that is not enough."""
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]


__all__ = ["FIELD_PROTOCOL", "answer_of", "score_pairs", "score_speakers"]
