"""Numba kernels that pose Gaussians on a mesh, both ways: what takes 40 torch operations otherwise.

The formulas are those of `binding.triangle_frames` and `GaussianHead.forward`; this file holds no
parameters. Only positions pass gradients to the vertices, as there.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import math

import numpy as np
from numba import float32 as f4

from talkgs_cli.rendering.numba_jit import inline, kernel

FRAME = 8
"""Columns of a frame: quaternion wxyz, normal, size (metres per unit of scale)."""

COLLAPSED_M2 = 1e-14  # square metres: such a triangle has no axes
COLLAPSED = 1e-6  # nor has one whose area is this share of its squared sides: that is rounding
STRETCH_MIN, STRETCH_MAX = 0.4, 1.6


@inline
def axes_to_quat(m, out):
    """Quaternion of the rotation matrix m (row-major [9]) into out[0..4), stable for any angle."""
    one, half = f4(1), f4(0.5)
    trace = m[0] + m[4] + m[8]
    if trace > f4(0):
        s = math.sqrt(trace + one)
        out[0] = half * s
        s = half / s
        out[1], out[2], out[3] = (m[7] - m[5]) * s, (m[2] - m[6]) * s, (m[3] - m[1]) * s
    elif m[0] >= m[4] and m[0] >= m[8]:
        s = math.sqrt(one + m[0] - m[4] - m[8])
        out[1] = half * s
        s = half / s
        out[0], out[2], out[3] = (m[7] - m[5]) * s, (m[1] + m[3]) * s, (m[2] + m[6]) * s
    elif m[4] >= m[8]:
        s = math.sqrt(one + m[4] - m[0] - m[8])
        out[2] = half * s
        s = half / s
        out[0], out[1], out[3] = (m[2] - m[6]) * s, (m[1] + m[3]) * s, (m[5] + m[7]) * s
    else:
        s = math.sqrt(one + m[8] - m[0] - m[4])
        out[3] = half * s
        s = half / s
        out[0], out[1], out[2] = (m[3] - m[1]) * s, (m[2] + m[6]) * s, (m[5] + m[7]) * s


@kernel
def pose(
    start, stop, vertices, triangles, areas, barycentric, offset, quats, turns, sizes, sh0,
    shifts, shN, moves, unit, means, out_quats, scales, colors, frames,
):  # fmt: skip
    """Pose Gaussians start..stop.

    Args:
        start: First Gaussian.
        stop: One past the last.
        vertices: [V, 3] metres.
        triangles: [N, 3] int64, vertices of each Gaussian's triangle.
        areas: [N] area of that triangle at rest.
        barycentric: [N, 2].
        offset: [N] pixels along the normal.
        quats: [N, 4] in the triangle's frame.
        turns: [N, 4] added to quats.
        sizes: [N, 3] pixels (torch has a vectorised exp, Numba has not).
        sh0: [N, 1, 3].
        shifts: [N, 3] added to sh0.
        shN: [N, K - 1, 3].
        moves: [N, 3] pixels, added to the position.
        unit: Metres per pixel.
        means: [N, 3] out.
        out_quats: [N, 4] out.
        scales: [N, 3] out.
        colors: [N, K, 3] out.
        frames: [N, 8] out, for the way back.
    """
    R = np.empty(9, np.float32)
    one = f4(1)
    for i in range(start, stop):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        bx, by, bz = vertices[b, 0], vertices[b, 1], vertices[b, 2]
        cx, cy, cz = vertices[c, 0], vertices[c, 1], vertices[c, 2]
        ex, ey, ez = bx - ax, by - ay, bz - az
        fx, fy, fz = cx - ax, cy - ay, cz - az
        nx, ny, nz = ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        area = f4(0.5) * length
        sides = ex * ex + ey * ey + ez * ez + fx * fx + fy * fy + fz * fz
        flat = area < f4(COLLAPSED_M2) or area < f4(COLLAPSED) * sides
        n = f4(0) if flat else one / length
        nx, ny, nz = nx * n, ny * n, nz * n
        if flat:
            frames[i, 0] = one
            frames[i, 1] = f4(0)
            frames[i, 2] = f4(0)
            frames[i, 3] = f4(0)
        else:
            n = one / math.sqrt(ex * ex + ey * ey + ez * ez)
            ex, ey, ez = ex * n, ey * n, ez * n
            R[0], R[3], R[6] = ex, ey, ez
            R[1], R[4], R[7] = ny * ez - nz * ey, nz * ex - nx * ez, nx * ey - ny * ex
            R[2], R[5], R[8] = nx, ny, nz
            axes_to_quat(R, frames[i])
        stretch = math.sqrt(area / areas[i])
        size = min(f4(STRETCH_MAX), max(f4(STRETCH_MIN), stretch)) * unit
        frames[i, 4] = nx
        frames[i, 5] = ny
        frames[i, 6] = nz
        frames[i, 7] = size
        u, v = barycentric[i, 0], barycentric[i, 1]
        t = one - u - v
        along = offset[i] * unit
        means[i, 0] = ax * t + bx * u + cx * v + along * nx + moves[i, 0] * unit
        means[i, 1] = ay * t + by * u + cy * v + along * ny + moves[i, 1] * unit
        means[i, 2] = az * t + bz * u + cz * v + along * nz + moves[i, 2] * unit
        qw, qx, qy, qz = (
            quats[i, 0] + turns[i, 0],
            quats[i, 1] + turns[i, 1],
            quats[i, 2] + turns[i, 2],
            quats[i, 3] + turns[i, 3],
        )
        n = one / max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), f4(1e-12))
        qw, qx, qy, qz = qw * n, qx * n, qy * n, qz * n
        pw, px, py, pz = frames[i, 0], frames[i, 1], frames[i, 2], frames[i, 3]
        out_quats[i, 0] = pw * qw - px * qx - py * qy - pz * qz
        out_quats[i, 1] = pw * qx + px * qw + py * qz - pz * qy
        out_quats[i, 2] = pw * qy - px * qz + py * qw + pz * qx
        out_quats[i, 3] = pw * qz + px * qy - py * qx + pz * qw
        for j in range(3):
            scales[i, j] = sizes[i, j] * size
            colors[i, 0, j] = sh0[i, 0, j] + shifts[i, j]
        for k in range(shN.shape[1]):
            for j in range(3):
                colors[i, k + 1, j] = shN[i, k, j]


@kernel
def pose_backward(
    start, stop, vertices, triangles, barycentric, quats, turns, unit, frames, scales, opacities,
    g_means, g_quats, g_scales, g_opacities, g_colors,
    g_barycentric, g_offset, g_local, g_log_scales, g_logits, g_sh0, g_shN, g_moves,
):  # fmt: skip
    """Gradients of `pose` for Gaussians start..stop, but for the vertices'.

    Args as in `pose`, gradients of its outputs, then gradients of its parameters (out; g_local is
    that of quats and of turns, g_sh0 that of sh0 and of shifts).
    """
    one = f4(1)
    for i in range(start, stop):
        gx, gy, gz = g_means[i, 0], g_means[i, 1], g_means[i, 2]
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        gu, gv = f4(0), f4(0)
        for j in range(3):
            g = g_means[i, j]
            gu += g * (vertices[b, j] - vertices[a, j])
            gv += g * (vertices[c, j] - vertices[a, j])
            g_moves[i, j] = g * unit
            g_log_scales[i, j] = g_scales[i, j] * scales[i, j]
            g_sh0[i, 0, j] = g_colors[i, 0, j]
        g_barycentric[i, 0] = gu
        g_barycentric[i, 1] = gv
        g_offset[i] = unit * (gx * frames[i, 4] + gy * frames[i, 5] + gz * frames[i, 6])
        o = opacities[i]
        g_logits[i] = g_opacities[i] * o * (one - o)
        # out = p q: the gradient to q is conj(p) times that of out
        pw, px, py, pz = frames[i, 0], frames[i, 1], frames[i, 2], frames[i, 3]
        hw, hx, hy, hz = g_quats[i, 0], g_quats[i, 1], g_quats[i, 2], g_quats[i, 3]
        rw = pw * hw + px * hx + py * hy + pz * hz
        rx = pw * hx - px * hw - py * hz + pz * hy
        ry = pw * hy + px * hz - py * hw - pz * hx
        rz = pw * hz - px * hy + py * hx - pz * hw
        qw, qx, qy, qz = (
            quats[i, 0] + turns[i, 0],
            quats[i, 1] + turns[i, 1],
            quats[i, 2] + turns[i, 2],
            quats[i, 3] + turns[i, 3],
        )
        n = one / max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), f4(1e-12))
        qw, qx, qy, qz = qw * n, qx * n, qy * n, qz * n
        along = rw * qw + rx * qx + ry * qy + rz * qz
        g_local[i, 0] = (rw - along * qw) * n
        g_local[i, 1] = (rx - along * qx) * n
        g_local[i, 2] = (ry - along * qy) * n
        g_local[i, 3] = (rz - along * qz) * n
        for k in range(g_shN.shape[1]):
            for j in range(3):
                g_shN[i, k, j] = g_colors[i, k + 1, j]


@kernel
def vertex_gradients(triangles, barycentric, g_means, g_vertices):
    """Add the positions' gradients to the vertices [V, 3], on one thread and so in one order."""
    for i in range(triangles.shape[0]):
        u, v = barycentric[i, 0], barycentric[i, 1]
        for j in range(3):
            g = g_means[i, j]
            g_vertices[triangles[i, 0], j] += g * (f4(1) - u - v)
            g_vertices[triangles[i, 1], j] += g * u
            g_vertices[triangles[i, 2], j] += g * v
