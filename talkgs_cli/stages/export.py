"""`export`: a speaker's Gaussians as a .ply for other viewers, or its head motion as .npz.

It computes nothing new and needs no ffmpeg; the formats are described in docs/export.md.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import Progress, atomic_path, require_writable
from talkgs_cli.speaker import SpeakerFolder

if TYPE_CHECKING:
    from talkgs_cli.rendering.gaussian_head import PosedGaussians

FORMATS = ("ply", "npz")
HARMONICS = 16  # viewers of the first Gaussian Splatting files expect degree 3: padded with zeros
OPACITY_EDGE = 1e-6  # a logit needs an opacity strictly between 0 and 1


def export(
    speaker: SpeakerFolder,
    kind: str,
    out: Path | None,
    frame: int | None,
    progress: Progress,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write one file.

    Args:
        speaker: Fitted for "ply", prepared for "npz".
        kind: A name of FORMATS.
        out: The file; None: beside the fit, or in the speaker folder.
        frame: Whose pose the Gaussians take; None: the first frame with a face.
        progress: Tells the user.
        force: Replace a file with other contents.

    Raises:
        UsageError: no such format or frame, or another file is in the way.
        BadInput: the speaker is not fitted.
    """
    if kind not in FORMATS:
        raise UsageError(f"There is no format {kind!r}.", hint=f"Use one of: {', '.join(FORMATS)}")
    if frame is not None and kind == "npz":
        raise UsageError("--frame goes with --format ply.", hint="npz holds all frames.")
    with progress.stage("Exporting", None):
        if kind == "ply":
            shown = _frame_to_show(speaker, frame)
            data, count = _ply_of(speaker, shown)
            answer: dict[str, Any] = {"gaussians": count, "frame": shown}
        else:
            data = motion_npz(speaker)
            answer = {"frames": speaker.frame_count}
    path = out or _default_path(speaker, kind)
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", hint=f"Name a file: --out {path / f'head.{kind}'}")
    answer = {"file": str(path), "format": kind, "bytes": len(data), **answer}
    if path.is_file() and path.read_bytes() == data:
        return {**answer, "already_done": True}
    if path.exists() and not force:
        raise UsageError(
            f"{path} exists with other contents.",
            hint="Add --force to replace it, or name another file with --out.",
        )
    require_writable(path.parent)
    with atomic_path(path) as partial:
        partial.write_bytes(data)
    return answer


def _default_path(speaker: SpeakerFolder, kind: str) -> Path:
    return speaker.fit / "gaussians.ply" if kind == "ply" else speaker.path / "head_motion.npz"


def _frame_to_show(speaker: SpeakerFolder, frame: int | None) -> int:
    if frame is not None and not 0 <= frame < speaker.frame_count:
        raise UsageError(
            f"There is no frame {frame}: {speaker.path} has frames 0 to {speaker.frame_count - 1}."
        )
    return frame if frame is not None else int(speaker.load_tracking().valid.int().argmax())


def _ply_of(speaker: SpeakerFolder, frame: int) -> tuple[bytes, int]:
    """The Gaussians in the pose of a frame, and how many they are."""
    import torch

    from talkgs_cli.avatar import Avatar

    avatar = Avatar.load(speaker)
    motion = avatar.tracking.motion.at(slice(frame, frame + 1))
    with torch.no_grad():
        vertices = avatar.head.vertices(motion.expression, motion.jaw, motion.corrective)[0]
        posed = avatar.gaussians(vertices, avatar.codes(motion)[0])
    return gaussians_ply(posed), len(avatar.gaussians)


def gaussians_ply(posed: PosedGaussians) -> bytes:
    """Posed Gaussians with the attributes that 3D Gaussian Splatting's files have.

    Positions and log-scales in metres of the head frame, quaternions wxyz of length one, opacities
    as logits, colours as spherical harmonics: `f_dc` the constant, `f_rest` the others, all of
    red, then green, then blue.

    Returns:
        A binary little-endian .ply.
    """
    count = len(posed.means)
    colors = np.zeros((count, HARMONICS, 3), np.float32)
    colors[:, : posed.colors.shape[1]] = posed.colors.numpy()
    opacity = posed.opacities.double().clamp(OPACITY_EDGE, 1 - OPACITY_EDGE)
    quats = posed.quats / posed.quats.norm(dim=1, keepdim=True)
    columns: dict[str, NDArray[np.floating]] = {}
    columns |= _named(("x", "y", "z"), posed.means.numpy())
    columns |= _named(("nx", "ny", "nz"), np.zeros((count, 3), np.float32))
    columns |= _numbered("f_dc", colors[:, 0])
    columns |= _numbered("f_rest", colors[:, 1:].transpose(0, 2, 1).reshape(count, -1))
    columns |= {"opacity": opacity.logit().numpy()}
    columns |= _numbered("scale", posed.scales.clamp_min(1e-9).log().numpy())
    columns |= _numbered("rot", quats.numpy())
    table = np.stack(list(columns.values()), axis=1).astype("<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment made by talkgs: metres, x to the subject's left, y up, z out of the face",
        f"element vertex {count}",
        *(f"property float {name}" for name in columns),
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode() + table.tobytes()


def _named(names: tuple[str, ...], values: NDArray[np.floating]) -> dict[str, Any]:
    return {name: values[:, k] for k, name in enumerate(names)}


def _numbered(name: str, values: NDArray[np.floating]) -> dict[str, Any]:
    return {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}


def motion_npz(speaker: SpeakerFolder) -> bytes:
    """What `prepare` found of the head's motion, as plain arrays with their names."""
    from talkgs_cli.heads import load_head

    tracking = speaker.load_tracking()
    head = load_head(tracking.head)
    rate = speaker.frame_rate
    arrays: dict[str, Any] = {
        "time_s": np.arange(speaker.frame_count) * float(1 / rate),
        "frame_rate": np.array([rate.numerator, rate.denominator]),
        "valid": tracking.valid.numpy(),
        "head": np.array(tracking.head.partition(":")[0]),
        "shape": tracking.shape.numpy(),
        "expression": tracking.motion.expression.numpy(),
        "expression_names": np.array(head.expression_names),
        "jaw": tracking.motion.jaw.numpy(),
        "corrective": tracking.motion.corrective.numpy(),
        "world_to_camera": tracking.motion.world_to_camera.numpy(),
        "intrinsics": tracking.intrinsics.numpy(),
        "frame_size": np.array(speaker.size),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
