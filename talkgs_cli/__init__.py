"""talkgs: one person's video in, a 3D-Gaussian talking head that says any audio out.

From Python:

    import talkgs_cli

    for frame in talkgs_cli.speak("speaker", "in.wav"):  # [H, W, 3] uint8 RGB
        ...
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

__version__ = "0.1.0"


def speak(
    speaker: str | os.PathLike[str], audio: str | os.PathLike[str], **options: Any
) -> Generator[NDArray[np.uint8]]:
    """Make a fitted speaker say a sound file, frame by frame.

    Nothing is written, and frames are made only as they are asked for (a few ahead, in threads).
    Closing the generator, or leaving the loop, ends threads and programs.

    Args:
        speaker: Folder of a fitted speaker.
        audio: Any file with sound.
        **options: Fields of `talkgs_cli.config.SpeakConfig`, such as `frame_rate="29.97"`,
            `crop=True`, `pose="still"`, `background="alpha"`.

    Yields:
        [H, W, 3] uint8 RGB; with `background="alpha"` [H, W, 4] RGBA.

    Raises:
        talkgs_cli.errors.BadInput: the speaker or the sound can't be used.
        talkgs_cli.errors.UsageError: options that there aren't, or that don't fit together.
    """
    from talkgs_cli.python_api import speak as run

    return run(speaker, audio, **options)
