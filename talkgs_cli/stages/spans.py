"""Stretches of time in a video, and how to say where they are; not what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_NAMED = 3  # time codes in one sentence; a reader looks at a few, not at fifty


@dataclass(frozen=True)
class Span:
    """From `start_s` to `end_s`, seconds from the video's first frame."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def to_json(self) -> list[float]:
        """[start, end], seconds."""
        return [round(self.start_s, 3), round(self.end_s, 3)]


def spans_where(
    flags: NDArray[np.bool_], frame_rate: float, *, least_s: float = 0.0, bridge_s: float = 0.0
) -> tuple[Span, ...]:
    """The stretches in which `flags` is true.

    Args:
        flags: [T], one per frame.
        frame_rate: Frames per second.
        least_s: Shorter stretches are left out.
        bridge_s: Stretches closer than this are one.

    >>> flags = np.array([0, 1, 1, 0, 1, 0, 0, 0, 0, 1], bool)
    >>> [span.to_json() for span in spans_where(flags, 10.0, least_s=0.2, bridge_s=0.2)]
    [[0.1, 0.5]]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    joined: list[list[int]] = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and start - joined[-1][1] < bridge_s * frame_rate:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    least = least_s * frame_rate - 1e-6
    return tuple(
        Span(start / frame_rate, stop / frame_rate)
        for start, stop in joined
        if stop - start >= least
    )


def total_s(spans: Sequence[Span]) -> float:
    """How long they are together."""
    return sum(span.duration_s for span in spans)


def time_code(seconds: float) -> str:
    """A time as players show it.

    >>> time_code(12.7), time_code(3725.0)
    ('0:12', '1:02:05')
    """
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


def at_times(times_s: Sequence[float]) -> str:
    """Where to look, the first few named.

    >>> at_times([12.0]), at_times([1.0, 5.0]), at_times([1.0, 5.0, 9.0, 70.0, 80.0])
    ('at 0:12', 'at 0:01 and 0:05', 'at 0:01, 0:05, 0:09 and 2 more')
    >>> at_times([7.0, 7.8])
    'at 0:07'
    """
    codes = list(dict.fromkeys(time_code(time_s) for time_s in times_s))  # one second, one code
    named = codes[:MOST_NAMED]
    if len(codes) > MOST_NAMED:
        return f"at {', '.join(named)} and {len(codes) - MOST_NAMED} more"
    if len(named) > 1:
        return f"at {', '.join(named[:-1])} and {named[-1]}"
    return f"at {named[0]}"


def described(spans: Sequence[Span]) -> str:
    """How long and where.

    >>> described([Span(12.0, 15.0)]), described([Span(12.0, 15.0), Span(40.0, 41.5)])
    ('for 3.0 s at 0:12', 'for 4.5 s, at 0:12 and 0:40')
    """
    comma = "," if len(spans) > 1 else ""
    return f"for {total_s(spans):.1f} s{comma} {at_times([span.start_s for span in spans])}"
