"""What `import talkgs_cli` offers to programs; loaded when it is first used."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.speaker import SpeakerFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def speak(
    speaker: str | os.PathLike[str], audio: str | os.PathLike[str], **options: Any
) -> Generator[NDArray[np.uint8]]:
    """See `talkgs_cli.speak`. Options and files are checked at once, not at the first frame."""
    known = {field.name for field in fields(SpeakConfig)}
    if unknown := sorted(set(options) - known):
        raise UsageError(
            f"speak has no option {', '.join(unknown)}.", hint=f"Known: {', '.join(sorted(known))}."
        )
    from talkgs_cli.media.ffmpeg import require_file
    from talkgs_cli.stages.speak import frames_of_speech

    folder = SpeakerFolder.open_(Path(speaker))
    folder.require_fit()
    require_file(Path(audio), "sound")
    return frames_of_speech(folder, Path(audio), SpeakConfig(**options))
