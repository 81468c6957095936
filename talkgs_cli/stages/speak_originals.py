"""The speaker's original frames in the order of a walk: a few in memory, whatever its length.

It reads files and makes nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.speaker import SpeakerFolder

BACKWARDS_BYTES = 32 * 1024 * 1024  # original frames held while the clip plays backwards
BACKWARDS_FRAMES = 12  # but at least so many: every piece costs the start of a decoder


@dataclass
class Original:
    """What lies under one rendered frame.

    Attributes:
        index: Its number in the clip.
        frame: [H, W, 3] uint8.
        label: [S, S] label image of its crop.
    """

    index: int
    frame: NDArray[np.uint8]
    label: NDArray[np.uint8]


def originals(speaker: SpeakerFolder, positions: Iterator[int]) -> Iterator[Original]:
    """Frames and labels at `positions`, which may stand still, step and turn."""
    label: NDArray[np.uint8] | None = None
    last = -1
    for index, frame in original_frames(speaker, positions):
        if label is None or index != last:
            label, last = speaker.label(index), index
        yield Original(index, frame, label)


def original_frames(
    speaker: SpeakerFolder, positions: Iterator[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(number, [H, W, 3] uint8) of the frames at `positions`."""
    height, width = speaker.size
    longest = max(BACKWARDS_FRAMES, BACKWARDS_BYTES // (height * width * 3))
    walk, last = _Peekable(positions), -1
    while (following := walk.following) is not None:
        if following >= last:
            for last, frame in _forwards(speaker, walk):
                yield last, frame
            continue
        batch = [walk.take()]
        while (following := walk.following) is not None:
            if following > batch[-1] or batch[0] - following >= longest:
                break
            batch.append(walk.take())
        yield from _backwards(speaker, batch)
        last = batch[-1]


class _Peekable:
    """An iterator whose next item can be looked at: `following`, None at the end."""

    def __init__(self, items: Iterator[int]) -> None:
        self._items = items
        self.following = next(items, None)

    def take(self) -> int:
        taken = self.following
        assert taken is not None
        self.following = next(self._items, None)
        return taken


def _forwards(speaker: SpeakerFolder, walk: _Peekable) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode on and on, as long as the walk does not go back."""
    assert walk.following is not None
    at = walk.following - 1
    with closing(_decode(speaker, at + 1)) as frames:
        frame: NDArray[np.uint8] | None = None
        while (following := walk.following) is not None and following >= at:
            while at < following:
                frame = next(frames, None)
                at += 1
            if frame is None:
                raise BadInput(
                    f"{speaker.video} ends before frame {following}.",
                    hint="Run talkgs prepare again with --force.",
                )
            yield walk.take(), frame


def _backwards(speaker: SpeakerFolder, batch: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode a falling batch of positions forwards, give it backwards."""
    with closing(_decode(speaker, batch[-1], batch[0] - batch[-1] + 1)) as frames:
        wanted = set(batch)
        held = {i: frame for i, frame in enumerate(frames, batch[-1]) if i in wanted}
    for index in batch:
        yield index, held[index]


def _decode(
    speaker: SpeakerFolder, first: int, count: int | None = None
) -> Generator[NDArray[np.uint8]]:
    from talkgs_cli.media.video import read_frames

    return read_frames(speaker.video, start_s=float(first / speaker.frame_rate), frames=count)
