"""Convert a user's FLAME file where it is needed, with the tracker's own landmark detector.

`heads` does the work; here it gets the detector and the rasteriser, which it may not import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.types import HeadModel

PREFIX = "flame:"
LOOKS = 3  # the landmarker settles on a still picture


def head_name(given: str) -> str:
    """The name under which a speaker keeps its head: of a FLAME file what is in it, not its path.

    Args:
        given: What `prepare --head` takes.

    Raises:
        BadInput: there is no such FLAME file.
    """
    if not given.startswith(PREFIX):
        return given
    from talkgs_cli.heads.flame import flame_key

    return PREFIX + flame_key(given)


def head_for(given: str, progress: Progress) -> HeadModel:
    """Load the head that `prepare --head` names; a FLAME file is converted the first time.

    Raises:
        UsageError: there is no such head.
        BadInput: there is no such FLAME file, or it isn't one.
    """
    from talkgs_cli.heads import load_head

    path = Path(given.removeprefix(PREFIX)).expanduser()
    if given.startswith(PREFIX) and path.is_file():
        convert_flame(path, progress)
    return load_head(given)


def convert_flame(path: Path, progress: Progress) -> dict[str, Any]:
    """Convert a FLAME file into the cache, unless it is there.

    Returns:
        head: the name to use it by; vertices; landmarks: "derived", "transferred", with
        "+embedding"; file: where the converted head lies.

    Raises:
        BadInput: not a FLAME file.
        DownloadFailed: the landmark detector or the open head can't be had.
    """
    from talkgs_cli.heads.flame import FlameHead, cached_file, flame_key

    flame_key(str(path))  # says what is wrong with a path
    try:
        head = FlameHead.load(PREFIX + str(path))
    except BadInput:  # not in the cache, or damaged there
        head = _convert(path, progress)
    return {
        "head": head.name,
        "vertices": len(head.template),
        "landmarks": head.table,
        "file": str(cached_file(head.key)),
    }


def _convert(path: Path, progress: Progress) -> Any:
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.heads.flame_import import import_flame
    from talkgs_cli.landmark_points import LIPS_INNER
    from talkgs_cli.rendering.mesh import rasterize_mesh
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    landmarker = FaceLandmarker(fetch_file("face_landmarker"))

    def detect(image: NDArray[np.uint8]) -> NDArray[Any] | None:
        landmarker.reset()
        seen = [landmarker.track(image) for _ in range(LOOKS)][-1]
        return None if seen is None else seen.landmarks

    with progress.stage("Converting the FLAME file", 1) as advance:
        head = import_flame(path, detect, rasterize_mesh, LIPS_INNER)
        advance(1)
    return head
