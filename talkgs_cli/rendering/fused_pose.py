"""`fused_pose`: Gaussians on a posed mesh in one step, for the CPU; `GaussianHead` decides when.

The specification is `GaussianHead.forward` in plain torch; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _FusedPose(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        triangles: Tensor,
        areas: Tensor,
        unit: float,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        import numpy as np

        from talkgs_cli.rendering import numba_pose
        from talkgs_cli.rendering.numba_jit import even_pieces, run_pieces

        barycentric, offset, quats, turns, log_scales, logits, sh0, shifts, shN, moves = parameters
        count = len(triangles)
        means, out_quats = torch.empty(count, 3), torch.empty(count, 4)
        scales, colors = torch.empty(count, 3), torch.empty(count, shN.shape[1] + 1, 3)
        frames = torch.empty(count, numba_pose.FRAME)
        opacities = torch.sigmoid(logits)
        inputs = (
            vertices, triangles, areas, barycentric, offset, quats, turns, torch.exp(log_scales),
            sh0, shifts, shN, moves,
        )  # fmt: skip
        outputs = (means, out_quats, scales, colors, frames)
        run_pieces(
            numba_pose.pose, even_pieces(count, 2048),
            *(t.detach().contiguous().numpy() for t in inputs), np.float32(unit),
            *(t.numpy() for t in outputs),
        )  # fmt: skip
        ctx.save_for_backward(
            vertices, triangles, barycentric, quats, turns, frames, scales, opacities
        )
        ctx.unit = unit
        return means, out_quats, scales, opacities, colors

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        import numpy as np

        from talkgs_cli.rendering import numba_pose
        from talkgs_cli.rendering.numba_jit import even_pieces, run_pieces

        saved = [t.detach().contiguous() for t in ctx.saved_tensors]
        vertices, triangles, barycentric, quats, turns, frames, scales, opacities = saved
        given = [g.contiguous().numpy() for g in gradients]
        count, harmonics = len(triangles), gradients[4].shape[1]
        sizes = [(2,), (), (4,), (3,), (), (1, 3), (harmonics - 1, 3), (3,)]
        out = [torch.empty(count, *size) for size in sizes]
        before = (t.numpy() for t in (vertices, triangles, barycentric, quats, turns))
        run_pieces(
            numba_pose.pose_backward, even_pieces(count, 2048), *before, np.float32(ctx.unit),
            frames.numpy(), scales.numpy(), opacities.numpy(), *given, *(t.numpy() for t in out),
        )  # fmt: skip
        g_vertices = None
        if ctx.needs_input_grad[0]:
            g_vertices = torch.zeros_like(vertices)
            numba_pose.vertex_gradients(
                triangles.numpy(), barycentric.numpy(), given[0], g_vertices.numpy()
            )
        g_barycentric, g_offset, g_local, g_log_scales, g_logits, g_sh0, g_shN, g_moves = out
        return (
            g_vertices, None, None, None, g_barycentric, g_offset, g_local, g_local, g_log_scales,
            g_logits, g_sh0, g_sh0[:, 0], g_shN, g_moves,
        )  # fmt: skip


def fused_pose(
    vertices: Tensor,
    triangles: Tensor,
    areas: Tensor,
    metres_per_pixel: float,
    *,
    barycentric: Tensor,
    offset: Tensor,
    quats: Tensor,
    turns: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    sh0: Tensor,
    color_shifts: Tensor,
    shN: Tensor,
    moves: Tensor,
) -> tuple[Tensor, ...]:
    """Pose N Gaussians: float32 on the CPU only.

    Args:
        vertices: [V, 3] metres; gradients reach it through the positions.
        triangles: [N, 3] int64 vertices of each Gaussian's triangle.
        areas: [N] square metres at rest.
        metres_per_pixel: Unit of offset, moves and log_scales.
        barycentric: [N, 2].
        offset: [N] pixels along the normal.
        quats: [N, 4] in the triangle's frame.
        turns: [N, 4] added to quats (blendshapes).
        log_scales: [N, 3] log pixels.
        opacity_logits: [N].
        sh0: [N, 1, 3].
        color_shifts: [N, 3] added to sh0 (blendshapes).
        shN: [N, K - 1, 3].
        moves: [N, 3] pixels added to the position (blendshapes).

    Returns:
        The fields of `PosedGaussians` in order: means, quats, scales, opacities, colors.
    """
    return _FusedPose.apply(
        vertices, triangles, areas, metres_per_pixel, barycentric, offset, quats, turns,
        log_scales, opacity_logits, sh0, color_shifts, shN, moves,
    )  # fmt: skip
