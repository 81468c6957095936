"""Curves over the time of a video as inline SVG; it measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.stages.spans import Span, time_code

WIDTH, HEIGHT = 1080, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 8, 20  # margins
MOST_POINTS = 1500  # of a drawn curve; longer ones keep their lowest and highest values
TICKS = 4
TIME_STEPS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000)
TIME_TICKS = 12


@dataclass(frozen=True)
class Curve:
    """One value per frame: [T], nan where there is none."""

    name: str
    values: NDArray[np.floating]


@dataclass(frozen=True)
class Marks:
    """What all curves of a video show behind the lines.

    Attributes:
        gaps: Where nothing was seen, grey.
        cuts_s: When the picture is cut, a red line.
    """

    gaps: tuple[Span, ...] = ()
    cuts_s: tuple[float, ...] = ()


def curves(
    title: str,
    caption: str,
    lines: Sequence[Curve],
    frame_rate: float,
    marks: Marks,
    *,
    flagged: Sequence[Span] = (),
    limits: Sequence[float] = (),
    least_range: tuple[float, float] | None = None,
    start_s: float = 0.0,
) -> str:
    """One figure.

    Args:
        title: What is drawn, with its unit.
        caption: How to read it.
        lines: Up to four curves over the same frames.
        frame_rate: Frames per second.
        marks: Drawn behind.
        flagged: Stretches to look at, amber.
        limits: Values drawn as broken lines, if they lie in the range.
        least_range: Values the axis shows in any case.
        start_s: When the first frame is shown; spans and cuts are counted from it.
    """
    frames = len(lines[0].values)
    duration_s = frames / frame_rate
    low, high = _value_range([line.values for line in lines], least_range)
    frame = _Frame(duration_s, low, high, start_s)
    drawn = [frame.shade(span, "gap", "no face") for span in marks.gaps]
    drawn += [frame.shade(span, "flag", "look here") for span in flagged]
    drawn += [frame.level(value, "grid", label=True) for value in frame.value_ticks()]
    drawn += frame.time_ticks()
    drawn += [frame.level(value, "limit") for value in limits if low < value < high]
    drawn += [frame.moment(cut_s) for cut_s in marks.cuts_s]
    drawn += [
        f'<path class="c{k}" d="{frame.path(line.values, frame_rate)}">'
        f"<title>{escape(line.name)}</title></path>"
        for k, line in enumerate(lines)
    ]
    legend = "".join(f'<i class="c{k}"></i>{escape(line.name)}' for k, line in enumerate(lines))
    return (
        f'<figure class="curves"><figcaption><b>{escape(title)}</b>{legend}<br>{escape(caption)}'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(drawn)}</svg></figure>"
    )


def _value_range(
    values: Sequence[NDArray[np.floating]], least: tuple[float, float] | None
) -> tuple[float, float]:
    seen = np.concatenate([part[np.isfinite(part)] for part in values])
    ends = [float(seen.min()), float(seen.max())] if len(seen) else [0.0, 1.0]
    low, high = min([ends[0], *(least or ())]), max([ends[1], *(least or ())])
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


@dataclass(frozen=True)
class _Frame:
    """Where times and values lie in the drawing."""

    duration_s: float
    low: float
    high: float
    start_s: float = 0.0

    def x(self, time_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * time_s / self.duration_s

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def shade(self, span: Span, kind: str, label: str) -> str:
        left, right = self.x(span.start_s), self.x(span.end_s)
        when = f"{time_code(span.start_s)}, {span.duration_s:.1f} s"
        return (
            f'<rect class="{kind}" x="{left:.1f}" y="{TOP}" width="{max(right - left, 1):.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>{label}: {when}</title></rect>'
        )

    def level(self, value: float, kind: str, *, label: bool = False) -> str:
        y = self.y(value)
        text = (
            f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
            if label
            else ""
        )
        return f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>{text}'

    def moment(self, time_s: float) -> str:
        return (
            f'<path class="cut" d="M{self.x(time_s):.1f} {TOP}V{HEIGHT - BOTTOM}">'
            f"<title>cut: {time_code(time_s)}</title></path>"
        )

    def value_ticks(self) -> list[float]:
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** np.floor(np.log10(rough))
        step = float(power * next(m for m in (1, 2, 5, 10) if m * power >= rough))
        first = int(np.ceil(self.low / step))
        return [k * step for k in range(first, int(np.floor(self.high / step)) + 1)]

    def time_ticks(self) -> list[str]:
        wanted = (step for step in TIME_STEPS_S if self.duration_s / step <= TIME_TICKS)
        step = next(wanted, self.duration_s)
        first, last = self.start_s / step, (self.start_s + self.duration_s) / step
        drawn = []
        for k in range(int(np.ceil(first - 1e-9)), int(last + 1e-9) + 1):
            x = self.x(k * step - self.start_s)
            label = f"{k * step:g} s" if step < 1 else time_code(k * step)
            drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{label}</text>')
        return drawn

    def path(self, values: NDArray[np.floating], frame_rate: float) -> str:
        parts, pen_down = [], False
        for at, value in zip(*thinned(values), strict=True):
            if np.isfinite(value):
                x, y = self.x((at + 0.5) / frame_rate), self.y(value)
                parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
            pen_down = bool(np.isfinite(value))
        return "".join(parts)


def thinned(values: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """At most `MOST_POINTS` of a curve, with its lowest and highest places among them.

    Args:
        values: [T], nan where there is none.

    Returns:
        Indices, ascending, and the values there.
    """
    if len(values) <= MOST_POINTS:
        return np.arange(len(values)), values
    bounds = np.linspace(0, len(values), MOST_POINTS // 2 + 1).astype(int)
    kept = []
    for start, stop in pairwise(bounds.tolist()):
        part = values[start:stop]
        if np.isfinite(part).any():
            kept += sorted({start + int(np.nanargmin(part)), start + int(np.nanargmax(part))})
        else:
            kept.append(start)
    at = np.array(kept, np.intp)
    return at, values[at]
