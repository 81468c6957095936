"""How well a fitted head meets the tracker's landmarks, and how steady both are.

Frames are looked at in parts, so that memory does not grow with the clip. It fits nothing.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkgs_cli.landmark_points import (
    EYES,
    LIPS_INNER,
    LIPS_OUTER,
    OUTER_EYE_LEFT,
    OUTER_EYE_RIGHT,
)
from talkgs_cli.tracking.head_fitting import landmarks_in_parts
from talkgs_cli.types import HeadModel, Tracking

CHUNK = 256
P95_FRAMES = 4000  # frames the percentile is taken of, evenly spread


def reprojection_error(head: HeadModel, tracking: Tracking) -> dict[str, float]:
    """How well the fitted head meets the tracked landmarks, over the valid frames.

    Returns:
        mean, p95, lips, eyes: distances in % of the inter-ocular distance (outer eye corners);
        jitter_px, raw_jitter_px: mean length of the second difference over time of the head's
        landmarks and of the tracker's own; pose_jitter_deg, raw_pose_jitter_deg: the same of the
        head's rotation, and of the rotation that lays the tracker's mean face over each of its own.
    """
    index, valid = head.landmark_index, tracking.valid
    eyes = tracking.landmarks[:, [OUTER_EYE_LEFT, OUTER_EYE_RIGHT], :2][valid.numpy()]
    unit = 100.0 / float(np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1).mean())
    lips = torch.isin(index, torch.tensor(LIPS_OUTER + LIPS_INNER))
    eyelids = torch.isin(index, torch.tensor(EYES))
    steady = valid[2:] & valid[1:-1] & valid[:-2]
    stride = -(-len(tracking) // P95_FRAMES)
    sums: dict[str, float] = defaultdict(float)
    sample = []
    for part, ours in landmarks_in_parts(head, tracking, CHUNK, overlap=2):
        theirs = torch.from_numpy(tracking.landmarks[part][:, index.numpy(), :2])
        error = (ours - theirs)[:CHUNK][valid[part][:CHUNK]].norm(dim=-1) * unit  # [b, L]
        sums["mean"] += float(error.sum()) / error.shape[1]
        sums["lips"] += float(error[:, lips].sum()) / int(lips.sum())
        sums["eyes"] += float(error[:, eyelids].sum()) / int(eyelids.sum())
        sample.append(error[::stride].clone())  # a view would keep the whole part
        counted = steady[part.start : part.start + CHUNK]
        sums["jitter_px"] += _bend(ours, counted)
        sums["raw_jitter_px"] += _bend(theirs, counted)
    frames, bends = max(int(valid.sum()), 1), max(int(steady.sum()), 1)
    return {
        "mean": sums["mean"] / frames,
        "p95": float(np.percentile(torch.cat(sample).numpy(), 95)),
        "lips": sums["lips"] / frames,
        "eyes": sums["eyes"] / frames,
        "jitter_px": sums["jitter_px"] / bends,
        "raw_jitter_px": sums["raw_jitter_px"] / bends,
        "pose_jitter_deg": _pose_jitter(tracking.motion.world_to_camera[:, :3, :3], valid, steady),
        "raw_pose_jitter_deg": _pose_jitter(_rigid_rotations(head, tracking), valid, steady),
    }


def _bend(points: Tensor, counted: Tensor) -> float:
    """Sum over the counted frames of the mean second difference of [B, L, D] points."""
    bend = (points[2:] - 2 * points[1:-1] + points[:-2]).norm(dim=-1)
    return float(bend[counted[: len(bend)]].mean(dim=1).sum())


def _pose_jitter(rotations: Tensor, valid: Tensor, steady: Tensor) -> float:
    """Mean second difference of [T, 3, 3] rotations over the steady frames, degrees."""
    if not steady.any():
        return 0.0
    vectors = Rotation.from_matrix(
        (rotations @ rotations[int(valid.nonzero()[0])].T).double().numpy()
    ).as_rotvec(degrees=True)
    return _bend(torch.from_numpy(vectors).float()[:, None], steady) / int(steady.sum())


def _rigid_rotations(head: HeadModel, tracking: Tracking) -> Tensor:
    """[T, 3, 3] rotations that lay the tracker's mean face over each frame's (Kabsch)."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(tracking), CHUNK)]

    def arms(part: slice) -> Tensor:
        points = torch.from_numpy(tracking.landmarks[part][:, head.landmark_index.numpy()])
        return points - points.mean(1, keepdim=True)

    mean = torch.stack([arms(part).sum(0) for part in parts]).sum(0) / len(tracking)
    turns = torch.empty(len(tracking), 3, 3)
    for part in parts:
        left, _, right = torch.linalg.svd(arms(part).transpose(1, 2) @ mean)
        sign = torch.ones(len(left), 3)
        sign[:, 2] = torch.linalg.det(left @ right).sign()
        turns[part] = left @ torch.diag_embed(sign) @ right
    return turns
