"""Numba kernels that project Gaussians to screen ellipses and evaluate their colours, both ways.

They do no sorting and touch no pixel. One Gaussian and camera gives one *record*, a row of float32:
conic xx, xy, yy (inverse screen covariance, 1/pixels^2), opacity, the D features, depth (metres).
Formulas: Zwicker et al. 2001 (EWA), Kerbl et al. 2023 section 4; conventions are gsplat's
(docs/rendering.md).
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import math

import numpy as np
from numba import float32 as f4

from talkgs_cli.rendering.numba_jit import inline, kernel

CONIC, OPACITY, FEATURES = 0, 3, 4
"""Where a record's parts begin; depth is the last column."""

SH_COUNT = 16
C0 = 0.2820947917738781
C1 = 0.48860251190292


@inline
def sh_basis(degree, x, y, z, basis):
    """Real spherical harmonics up to degree 3 of the unit direction (x, y, z), into basis[16]."""
    basis[0] = f4(C0)
    if degree > 0:
        basis[1] = f4(-C1) * y
        basis[2] = f4(C1) * z
        basis[3] = f4(-C1) * x
    if degree > 1:
        zz = z * z
        cos2 = x * x - y * y
        sin2 = f4(2) * x * y
        b = f4(-1.092548430592079) * z
        a = f4(0.5462742152960395)
        basis[4] = a * sin2
        basis[5] = b * y
        basis[6] = f4(0.9461746957575601) * zz - f4(0.3153915652525201)
        basis[7] = b * x
        basis[8] = a * cos2
        if degree > 2:
            c = f4(-2.285228997322329) * zz + f4(0.4570457994644658)
            b = f4(1.445305721320277) * z
            a = f4(-0.5900435899266435)
            basis[9] = a * (x * sin2 + y * cos2)
            basis[10] = b * sin2
            basis[11] = c * y
            basis[12] = z * (f4(1.865881662950577) * zz - f4(1.119528997770346))
            basis[13] = c * x
            basis[14] = b * cos2
            basis[15] = a * (x * cos2 - y * sin2)


@inline
def rotation(w, x, y, z, out):
    """Rotation matrix of a unit quaternion, row-major into out[9]; all zeros give the identity."""
    two = f4(2)
    one = f4(1)
    out[0] = one - two * (y * y + z * z)
    out[1] = two * (x * y - w * z)
    out[2] = two * (x * z + w * y)
    out[3] = two * (x * y + w * z)
    out[4] = one - two * (x * x + z * z)
    out[5] = two * (y * z - w * x)
    out[6] = two * (x * z - w * y)
    out[7] = two * (y * z + w * x)
    out[8] = one - two * (x * x + y * y)


@inline
def inverse_norm(squared):
    """1/sqrt, and 1 where there is no direction: a zero quaternion stays zero."""
    return f4(1) / math.sqrt(squared) if squared > f4(1e-24) else f4(1)


@kernel
def project(
    start, stop, means, quats, scales, opacities, colors, sh_degree, view, K, centre,
    width, height, eps2d, antialiased, near, far, means2d, records, radii, ellipses,
):  # fmt: skip
    """Project Gaussians start..stop for one camera.

    Args:
        start: First Gaussian.
        stop: One past the last.
        means: [N, 3].
        quats: [N, 4] wxyz, any length.
        scales: [N, 3].
        opacities: [N].
        colors: [N, K, 3] SH coefficients, or [N, D, 1] features when sh_degree < 0.
        sh_degree: Degree used, or -1.
        view: [4, 4] world to camera.
        K: [3, 3] pixels.
        centre: [3] camera centre, world.
        width: Image width.
        height: Image height.
        eps2d: Added to the screen covariance's diagonal, pixels^2.
        antialiased: Whether opacity makes up for eps2d.
        near: Near plane.
        far: Far plane.
        means2d: [N, 2] out, pixels.
        records: [N, 4 + D + 1] out; all zero but depth where the Gaussian is culled.
        radii: [N, 2] int32 out, pixels; 0 where culled.
        ellipses: [N, 4] out, where opacity falls to 1/255: half width and half height of that
            ellipse, y of its middle per x, half height per sqrt(half width^2 - x^2).
    """
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    W, H = f4(width), f4(height)
    margin_x, margin_y = f4(0.15) * W / fx, f4(0.15) * H / fy
    right, left = (W - cx) / fx + margin_x, -(cx / fx + margin_x)
    bottom, top = (H - cy) / fy + margin_y, -(cy / fy + margin_y)
    basis = np.empty(SH_COUNT, np.float32)
    R = np.empty(9, np.float32)
    columns = records.shape[1]
    count = (sh_degree + 1) * (sh_degree + 1)
    for i in range(start, stop):
        radii[i, 0] = 0
        radii[i, 1] = 0
        ellipses[i, 0] = f4(0)
        means2d[i, 0] = f4(0)
        means2d[i, 1] = f4(0)
        for j in range(columns - 1):
            records[i, j] = f4(0)
        m0, m1, m2 = means[i, 0], means[i, 1], means[i, 2]
        x = view[0, 0] * m0 + view[0, 1] * m1 + view[0, 2] * m2 + view[0, 3]
        y = view[1, 0] * m0 + view[1, 1] * m1 + view[1, 2] * m2 + view[1, 3]
        z = view[2, 0] * m0 + view[2, 1] * m1 + view[2, 2] * m2 + view[2, 3]
        records[i, columns - 1] = z
        if z <= near or z >= far:
            continue
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = inverse_norm(qw * qw + qx * qx + qy * qy + qz * qz)
        rotation(qw * n, qx * n, qy * n, qz * n, R)
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        rz = f4(1) / z
        # outside 1.3 times the view the slope is clamped, or the ellipse would explode
        lx = min(right, max(left, x * rz))
        ly = min(bottom, max(top, y * rz))
        a, b = fx * rz, fy * rz
        u0 = a * (view[0, 0] - lx * view[2, 0])
        u1 = a * (view[0, 1] - lx * view[2, 1])
        u2 = a * (view[0, 2] - lx * view[2, 2])
        v0 = b * (view[1, 0] - ly * view[2, 0])
        v1 = b * (view[1, 1] - ly * view[2, 1])
        v2 = b * (view[1, 2] - ly * view[2, 2])
        p0 = (u0 * R[0] + u1 * R[3] + u2 * R[6]) * s0
        p1 = (u0 * R[1] + u1 * R[4] + u2 * R[7]) * s1
        p2 = (u0 * R[2] + u1 * R[5] + u2 * R[8]) * s2
        q0 = (v0 * R[0] + v1 * R[3] + v2 * R[6]) * s0
        q1 = (v0 * R[1] + v1 * R[4] + v2 * R[7]) * s1
        q2 = (v0 * R[2] + v1 * R[5] + v2 * R[8]) * s2
        c00 = p0 * p0 + p1 * p1 + p2 * p2
        c01 = p0 * q0 + p1 * q1 + p2 * q2
        c11 = q0 * q0 + q1 * q1 + q2 * q2
        # |p x q|^2 = (p.p)(q.q) - (p.q)^2 without the cancellation
        n0, n1, n2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
        sharp_det = n0 * n0 + n1 * n1 + n2 * n2
        det = sharp_det + eps2d * (c00 + c11 + eps2d)
        c00 += eps2d
        c11 += eps2d
        if det <= f4(0):
            continue
        opacity = opacities[i]
        if antialiased:
            opacity *= math.sqrt(max(f4(0), sharp_det / det))
        if opacity < f4(1 / 255):
            continue
        exact = math.sqrt(f4(2) * math.log(opacity * f4(255)))
        extent = min(f4(3.33), exact)
        radius_x = f4(math.ceil(extent * math.sqrt(c00)))
        radius_y = f4(math.ceil(extent * math.sqrt(c11)))
        px = a * x + cx
        py = b * y + cy
        if radius_x <= 0 or radius_y <= 0:
            continue
        if px + radius_x <= 0 or px - radius_x >= W or py + radius_y <= 0 or py - radius_y >= H:
            continue
        radii[i, 0] = int(min(radius_x, f4(1e9)))
        radii[i, 1] = int(min(radius_y, f4(1e9)))
        ellipses[i, 0] = exact * math.sqrt(c00)
        ellipses[i, 1] = exact * math.sqrt(c11)
        ellipses[i, 2] = c01 / c00
        ellipses[i, 3] = math.sqrt(det) / c00
        means2d[i, 0] = px
        means2d[i, 1] = py
        inverse = f4(1) / det
        records[i, 0] = c11 * inverse
        records[i, 1] = -c01 * inverse
        records[i, 2] = c00 * inverse
        records[i, 3] = opacity
        if sh_degree < 0:
            for j in range(columns - 5):
                records[i, 4 + j] = colors[i, j, 0]
            continue
        d0, d1, d2 = m0 - centre[0], m1 - centre[1], m2 - centre[2]
        n = inverse_norm(d0 * d0 + d1 * d1 + d2 * d2)
        sh_basis(sh_degree, d0 * n, d1 * n, d2 * n, basis)
        red, green, blue = f4(0.5), f4(0.5), f4(0.5)
        for k in range(count):
            red += basis[k] * colors[i, k, 0]
            green += basis[k] * colors[i, k, 1]
            blue += basis[k] * colors[i, k, 2]
        records[i, 4] = max(f4(0), red)
        records[i, 5] = max(f4(0), green)
        records[i, 6] = max(f4(0), blue)
