"""The page that shows what a fit learnt: real | render | composite of unseen frames, and curves."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from talkgs_cli import __version__
from talkgs_cli.avatar import Avatar
from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.media.marking import SYNTHETIC
from talkgs_cli.runtime import Progress, atomic_path
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import report_html as html
from talkgs_cli.stages.fit_pictures import Comparison, comparisons, side_by_side
from talkgs_cli.stages.report_curves import Curve, Marks, curves
from talkgs_cli.stages.spans import time_code

SHEET_FRAMES = 12
TILE_PX = 512  # longest side of a shown picture; larger crops are shrunk
VIDEO_PX = 256  # the same for the video's three pictures
VIDEO_S = 4.0
VIDEO_CRF = 24
THREE_WAYS = (
    "Left as filmed, in the middle the Gaussians alone, right on the training frame that speak "
    "would put underneath. Look at teeth, eyes and the jaw line."
)
NOTHING_UNSEEN = (
    "No face was found in the last eleventh of the clip, which is kept back: these frames look "
    "better than new ones would."
)


def write_fit_report(
    speaker: SpeakerFolder, avatar: Avatar, result: dict[str, Any], progress: Progress
) -> None:
    """Write fit/report.html; it loads nothing when opened.

    Args:
        speaker: Fitted.
        avatar: Its avatar.
        result: The JSON answer so far.
        progress: Told about every picture.
    """
    train, test = speaker.splits()
    unseen = [index for index in test if avatar.tracking.valid[index]]
    usable = unseen or [index for index in train if avatar.tracking.valid[index]]
    filmed = usable[: int(VIDEO_S * speaker.frame_rate)]
    spread = usable[:: max(1, -(-len(usable) // SHEET_FRAMES))]
    with progress.stage("Writing the report", len(spread) + len(filmed)) as advance:
        tiles = []
        for shown in comparisons(speaker, avatar, spread):
            tiles.append(_tile(shown, float(speaker.frame_rate)))
            advance(1)
        video = _video(speaker, avatar, filmed, advance) if filmed else ""
        text = html.page(
            f"What talkgs learnt of {speaker.path.name}",
            html.section(
                "Frames it never saw" if unseen else "Frames it learnt from",
                html.paragraph(THREE_WAYS if unseen else f"{NOTHING_UNSEEN} {THREE_WAYS}"),
                video,
                html.contact_sheet(tiles, {}),
            ),
            html.section("While it learnt", *_figures(speaker.fit_log)),
            html.section("In figures", html.facts(_facts(result))),
            html.paragraph(
                f"Made by talkgs {__version__} on this machine. The page holds pictures of a "
                "person: share it only as you would share the video."
            ),
        )
        with atomic_path(speaker.fit_report) as partial:
            partial.write_text(text, encoding="utf-8")


def _tile(shown: Comparison, frame_rate: float) -> html.Tile:
    picture = side_by_side(shown, TILE_PX)
    height, width = picture.shape[:2]
    caption = f"{time_code(shown.index / frame_rate)}, frame {shown.index}"
    return html.Tile(html.jpeg_uri(picture), (height, width), caption)


def _video(speaker: SpeakerFolder, avatar: Avatar, frames: list[int], advance: Any) -> str:
    """The first seconds of the held-out block as an inline video."""
    side = min(VIDEO_PX, speaker.crop.size) // 2 * 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "comparison.mp4"
        size = (side, 3 * side)
        with VideoWriter(
            path, size, speaker.frame_rate, crf=VIDEO_CRF, metadata=SYNTHETIC
        ) as writer:
            for shown in comparisons(speaker, avatar, frames):
                writer.write(np.ascontiguousarray(side_by_side(shown, side)))
                advance(1)
        data = base64.b64encode(path.read_bytes()).decode()
    return f'<video controls loop muted src="data:video/mp4;base64,{data}"></video>'


def _figures(log: Path) -> list[str]:
    """Curves of the log over the minutes in which the Gaussians were fitted."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    learnt = [entry for entry in entries if entry.get("loss") is not None and "step" in entry]
    judged = [entry for entry in entries if "validation_psnr" in entry]
    if not learnt:
        return []
    seconds = learnt[-1]["step"] * learnt[-1]["s_per_step"]
    found = [_curve("loss", "Smoothed over steps; it rises where LPIPS joins.", learnt, seconds)]
    if len(judged) > 1:
        caption = "PSNR inside the mask of frames kept back inside the training part, dB."
        found.append(_curve("validation_psnr", caption, judged, seconds))
    return found


def _curve(name: str, caption: str, entries: list[dict[str, Any]], seconds: float) -> str:
    values = np.array([entry[name] for entry in entries], np.float64)
    title = name.replace("_", " ")
    return curves(title, caption, [Curve(title, values)], len(values) / seconds, Marks())


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    wanted = {
        "preset": "preset",
        "gaussians": "Gaussians",
        "iterations": "steps",
        "seconds": "seconds",
        "validation_loss": "validation loss of the weights kept",
        "backend": "rasteriser",
        "peak_rss_mb": "peak memory, MiB",
    }
    return [(said, f"{result[key]}") for key, said in wanted.items() if result.get(key) is not None]
