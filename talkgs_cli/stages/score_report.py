"""The page of a score: one table for all systems, curves over time, worst frames, error maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from talkgs_cli import __version__
from talkgs_cli.runtime import atomic_path
from talkgs_cli.stages import report_html as html
from talkgs_cli.stages.report_curves import Curve, Marks, curves
from talkgs_cli.stages.score_evidence import FULL_SCALE, Evidence, Series
from talkgs_cli.stages.score_table import behaviour_table, comparison_table, rows_table
from talkgs_cli.stages.spans import time_code

MOST_CURVES = 4
DRAWN_ROWS = ("audio", "generated", "tracked", "warped", "frozen")
DRAWN = (
    ("face", "psnr", "PSNR of the face, dB", "Higher is nearer to the real frame."),
    ("face", "lpips_alex", "LPIPS of the face", "Lower looks more alike."),
    ("mouth", "lpips_alex", "LPIPS of the mouth", "Lower looks more alike."),
    ("face", "lmd_iod", "Lip landmark distance, share of the eyes' distance", "Lower is nearer."),
)


@dataclass(frozen=True)
class System:
    """One scored speaker or video.

    Attributes:
        name: As the table calls it.
        answer: Of `score` or `score_videos`.
        evidence: What stands behind it; None for a protocol that keeps none.
    """

    name: str
    answer: dict[str, Any]
    evidence: Evidence | None


def write_score_report(path: Path, systems: Sequence[System]) -> None:
    """Write the page, atomically; it loads nothing and needs no script.

    Args:
        path: The html file.
        systems: In the order of the table; at least one.
    """
    names = ", ".join(system.name for system in systems)
    parts = [_head(systems)]
    for system in systems:
        parts += _system(system, several=len(systems) > 1)
    parts.append(_definitions(systems[0].answer))
    with atomic_path(path) as partial:
        partial.write_text(html.page(f"Score of {names}", *parts), encoding="utf-8")


def _head(systems: Sequence[System]) -> str:
    said = (
        "Read the share of true pixels before PSNR: pixels of the real frame inside a made one "
        "score as if they had been made. Rows are explained at the end."
    )
    if len(systems) == 1:
        return html.section("Figures", html.paragraph(said), rows_table(systems[0].answer))
    return html.section(
        f"{len(systems)} systems side by side",
        html.paragraph(said),
        comparison_table([(system.name, system.answer) for system in systems]),
        *_overlaid(systems),
    )


def _overlaid(systems: Sequence[System]) -> list[str]:
    """Curves of videos that were compared with the same reference, drawn over each other."""
    references = {system.answer.get("reference") for system in systems}
    shown = [(system.name, system.evidence) for system in systems if system.evidence is not None]
    if len(references) != 1 or references == {None} or not shown:
        return []
    rate = float(Fraction(shown[0][1].frame_rate))
    figures = []
    for region, metric, title, caption in DRAWN:
        lines = {
            name: values
            for name, evidence in shown
            if (values := evidence.series.get("generated", {}).get(region, {}).get(metric))
        }
        figures.append(_figure(title, caption, lines, rate))
    return figures


def _system(system: System, *, several: bool) -> list[str]:
    answer, evidence = system.answer, system.evidence
    title = f"{system.name}: " if several else ""
    parts = []
    if several:
        parts.append(html.section(f"{title}figures", rows_table(answer)))
    if notes := answer.get("notes"):
        parts.append(html.section(_heading(title, "what was adapted"), html.bullets(notes)))
    if any(value is not None for value in (answer.get("behaviour") or {}).values()):
        parts.append(html.section(_heading(title, "how the lips behave"), behaviour_table(answer)))
    if evidence is not None:
        parts.append(html.section(_heading(title, "over time"), *_curves(evidence)))
        parts.append(
            html.section(_heading(title, f"worst frames of {evidence.lead}"), *_worst(evidence))
        )
    return parts


def _heading(system: str, text: str) -> str:
    return f"{system}{text}" if system else text[0].upper() + text[1:]


def _curves(evidence: Evidence) -> list[str]:
    rate = float(Fraction(evidence.frame_rate))
    drawn = []
    for region, metric, title, caption in DRAWN:
        rows = {
            row: found
            for row in DRAWN_ROWS
            if (found := evidence.series.get(row, {}).get(region, {}).get(metric))
        }
        if not rows:
            rows = {
                row: found
                for row in DRAWN_ROWS
                if (found := evidence.series.get(row, {}).get("full", {}).get(metric))
            }
            title = title.replace("the face", "the frame")
        drawn.append(_figure(title, caption, rows, rate))
    opening = {
        row: evidence.openings[row] for row in ("real", *DRAWN_ROWS) if evidence.openings.get(row)
    }
    drawn.append(
        _figure(
            "Mouth opening, share of the eyes' distance",
            "The made mouth should follow the real one.",
            opening,
            rate,
            least_range=(0, 0.1),
        )
    )
    return [figure for figure in drawn if figure]


def _figure(
    title: str,
    caption: str,
    rows: dict[str, Series],
    rate: float,
    least_range: tuple[float, float] | None = None,
) -> str:
    rows = dict(list(rows.items())[:MOST_CURVES])
    if not rows:
        return ""
    first = min(min(values) for values in rows.values())
    last = max(max(values) for values in rows.values())
    lines = []
    for row, values in rows.items():
        line = np.full(last - first + 1, np.nan)
        for index, value in values.items():
            line[index - first] = value
        lines.append(Curve(row, line))
    return curves(
        title, caption, lines, rate, Marks(), least_range=least_range, start_s=first / rate
    )


def _worst(evidence: Evidence) -> list[str]:
    said = (
        f"Error: mean over red, green and blue; black is none, yellow is {FULL_SCALE:.0f} of 255 "
        "grey levels or more."
    )
    parts = [html.paragraph(said)]
    for moment in evidence.worst:
        order = ["real", evidence.lead, "error"]
        order += [row for row in moment.pictures if row not in order]
        pictures = [
            (f"error of {evidence.lead}" if name == "error" else name, moment.pictures[name])
            for name in order
        ]
        caption = (
            f"{_when(moment.time_s)}, frame {moment.frame}: {evidence.lead} {moment.psnr_db} dB "
            "in this picture"
        )
        parts.append(html.strip(pictures, caption))
    if evidence.error_map:
        parts.append(
            html.strip([("mean error", evidence.error_map)], "Mean over all measured frames")
        )
    return parts


def _when(time_s: float) -> str:
    return f"{time_code(time_s)}.{int(time_s * 100) % 100:02}"


def _definitions(answer: dict[str, Any]) -> str:
    settings = dict(answer.get("settings") or {})
    facts = [("Protocol", str(answer["protocol"])), ("talkgs", __version__)]
    facts.append(("Frames", str(answer["frames"])))
    if speed := answer.get("speed"):
        facts.append(
            (
                "Speed",
                f"{speed['fps_end_to_end']} frames a second from sound to encoded video, "
                f"{speed['size']}",
            )
        )
    ranges = settings.pop("frames", None)
    if ranges:
        runs = ", ".join(f"{start}-{stop - 1}" for start, stop in ranges)
        facts.append(("Which frames", runs))
    names = {
        "face_side_px": "Face square, px",
        "mouth_size_px": "Mouth box, px",
        "interval": "Intervals",
        "behaviour": "Lips measured by",
    }
    for key, value in settings.items():
        shown = " x ".join(map(str, value)) if isinstance(value, list) else str(value)
        facts.append((names.get(key, key.upper() if len(key) < 6 else key), shown))
    rows = [
        ("audio", "mouth from the held-out sound, pasted into the held-out frame: the product"),
        ("tracked", "mouth and head as tracked, pasted likewise: the renderer's ceiling"),
        ("composite", "tracked, over another frame: what the surroundings hide"),
        ("warped", "the training frame nearest in expression, warped: the floor of a renderer"),
        ("frozen", "mouth at rest: the floor of lips"),
        ("real", "the real frame: the detector's own noise, in landmark distance"),
        ("generated", "the made video"),
    ]
    shown_rows = [row for row in rows if row[0] in answer["rows"]]
    return html.section("How it was measured", html.facts(facts), html.facts(shown_rows))
