"""Numba kernel with the gradients of `numba_projection.project`; nothing else.

Derived by hand, term by term in the reverse order of the forward kernel, and checked against
autograd through the float64 reference (tests/test_rasterize_parity.py).
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import math

import numpy as np
from numba import float32 as f4

from talkgs_cli.rendering.numba_jit import inline, kernel
from talkgs_cli.rendering.numba_projection import C1, SH_COUNT, inverse_norm, rotation, sh_basis


@inline
def sh_direction_gradient(degree, x, y, z, weight, out):
    """Gradient of sum_k weight[k] basis[k] with respect to the unit direction, into out[3]."""
    two, three = f4(2), f4(3)
    gx, gy, gz = f4(0), f4(0), f4(0)
    if degree > 0:
        c = f4(C1)
        gx -= c * weight[3]
        gy -= c * weight[1]
        gz += c * weight[2]
    if degree > 1:
        a, b = f4(0.5462742152960395), f4(-1.092548430592079)
        gx += a * two * (y * weight[4] + x * weight[8]) + b * z * weight[7]
        gy += a * two * (x * weight[4] - y * weight[8]) + b * z * weight[5]
        gz += b * (y * weight[5] + x * weight[7]) + f4(2 * 0.9461746957575601) * z * weight[6]
    if degree > 2:
        zz = z * z
        c = f4(-2.285228997322329) * zz + f4(0.4570457994644658)
        dc = f4(-2 * 2.285228997322329) * z
        b, a = f4(1.445305721320277), f4(-0.5900435899266435)
        cos2 = x * x - y * y
        sin2 = two * x * y
        gx += a * three * (sin2 * weight[9] + cos2 * weight[15]) + c * weight[13]
        gx += b * z * two * (y * weight[10] + x * weight[14])
        gy += a * three * (cos2 * weight[9] - sin2 * weight[15]) + c * weight[11]
        gy += b * z * two * (x * weight[10] - y * weight[14])
        gz += b * (sin2 * weight[10] + cos2 * weight[14]) + dc * (y * weight[11] + x * weight[13])
        gz += (f4(3 * 1.865881662950577) * zz - f4(1.119528997770346)) * weight[12]
    out[0] = gx
    out[1] = gy
    out[2] = gz


@kernel
def project_backward(
    start, stop, means, quats, scales, opacities, colors, sh_degree, view, K, centre,
    width, height, eps2d, antialiased, radii, records, grad_means2d, grad_records,
    grad_means, grad_quats, grad_scales, grad_opacities, grad_colors, grad_view, piece_size,
):  # fmt: skip
    """Gradients for Gaussians start..stop and one camera, *added* to what is there.

    Args as in `project`, then the gradients of its outputs [N, 2] and [N, 4 + D + 1], then the
    gradients of the inputs (same shapes as those, zeroed by the caller before the first camera)
    and grad_view [pieces, 3, 4] float64, whose row start // piece_size this call fills: summed in
    order by the caller, so that the result does not depend on threads.
    """
    two = f4(2)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    W, H = f4(width), f4(height)
    margin_x, margin_y = f4(0.15) * W / fx, f4(0.15) * H / fy
    right, left = (W - cx) / fx + margin_x, -(cx / fx + margin_x)
    bottom, top = (H - cy) / fy + margin_y, -(cy / fy + margin_y)
    basis = np.empty(SH_COUNT, np.float32)
    weight = np.empty(SH_COUNT, np.float32)
    direction = np.zeros(3, np.float32)
    R = np.empty(9, np.float32)
    last = records.shape[1] - 1
    count = (sh_degree + 1) * (sh_degree + 1)
    piece = start // piece_size
    view_sum = np.zeros((3, 4), np.float64)
    for i in range(start, stop):
        g_depth = grad_records[i, last]
        m0, m1, m2 = means[i, 0], means[i, 1], means[i, 2]
        if radii[i, 0] <= 0:
            continue
        x = view[0, 0] * m0 + view[0, 1] * m1 + view[0, 2] * m2 + view[0, 3]
        y = view[1, 0] * m0 + view[1, 1] * m1 + view[1, 2] * m2 + view[1, 3]
        z = view[2, 0] * m0 + view[2, 1] * m1 + view[2, 2] * m2 + view[2, 3]
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        n = inverse_norm(qw * qw + qx * qx + qy * qy + qz * qz)
        qw *= n
        qx *= n
        qy *= n
        qz *= n
        rotation(qw, qx, qy, qz, R)
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        r00, r01, r02 = R[0] * s0, R[1] * s1, R[2] * s2
        r10, r11, r12 = R[3] * s0, R[4] * s1, R[5] * s2
        r20, r21, r22 = R[6] * s0, R[7] * s1, R[8] * s2
        rz = f4(1) / z
        lx = min(right, max(left, x * rz))
        ly = min(bottom, max(top, y * rz))
        a, b = fx * rz, fy * rz
        w0 = view[0, 0] - lx * view[2, 0]
        w1 = view[0, 1] - lx * view[2, 1]
        w2 = view[0, 2] - lx * view[2, 2]
        t0 = view[1, 0] - ly * view[2, 0]
        t1 = view[1, 1] - ly * view[2, 1]
        t2 = view[1, 2] - ly * view[2, 2]
        u0, u1, u2, v0, v1, v2 = a * w0, a * w1, a * w2, b * t0, b * t1, b * t2
        p0 = u0 * r00 + u1 * r10 + u2 * r20
        p1 = u0 * r01 + u1 * r11 + u2 * r21
        p2 = u0 * r02 + u1 * r12 + u2 * r22
        q0 = v0 * r00 + v1 * r10 + v2 * r20
        q1 = v0 * r01 + v1 * r11 + v2 * r21
        q2 = v0 * r02 + v1 * r12 + v2 * r22
        # conic -> covariance: dC = -S dS^-1 S, symmetric
        A, B, C = records[i, 0], records[i, 1], records[i, 2]
        gA, gB, gC = grad_records[i, 0], f4(0.5) * grad_records[i, 1], grad_records[i, 2]
        e00, e01 = A * gA + B * gB, A * gB + B * gC
        e10, e11 = B * gA + C * gB, B * gB + C * gC
        g00 = -(e00 * A + e01 * B)
        g01 = -two * (e00 * B + e01 * C)
        g11 = -(e10 * B + e11 * C)
        g_opacity = grad_records[i, 3]
        if antialiased:
            c00 = p0 * p0 + p1 * p1 + p2 * p2
            c01 = p0 * q0 + p1 * q1 + p2 * q2
            c11 = q0 * q0 + q1 * q1 + q2 * q2
            o0, o1, o2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
            sharp_det = o0 * o0 + o1 * o1 + o2 * o2
            b00, b11 = c00 + eps2d, c11 + eps2d
            det = sharp_det + eps2d * (c00 + c11 + eps2d)
            factor = math.sqrt(sharp_det / det)
            g_factor = g_opacity * opacities[i] * f4(0.5) / (factor + f4(1e-6))
            g_sharp = g_factor / det
            g_det = -g_factor * sharp_det / (det * det)
            g00 += g_sharp * c11 + g_det * b11
            g11 += g_sharp * c00 + g_det * b00
            g01 -= two * c01 * (g_sharp + g_det)
            g_opacity *= factor
        grad_opacities[i] += g_opacity
        P0, P1, P2 = two * g00 * p0 + g01 * q0, two * g00 * p1 + g01 * q1, two * g00 * p2 + g01 * q2
        Q0, Q1, Q2 = two * g11 * q0 + g01 * p0, two * g11 * q1 + g01 * p1, two * g11 * q2 + g01 * p2
        n00, n01, n02 = u0 * P0 + v0 * Q0, u0 * P1 + v0 * Q1, u0 * P2 + v0 * Q2
        n10, n11, n12 = u1 * P0 + v1 * Q0, u1 * P1 + v1 * Q1, u1 * P2 + v1 * Q2
        n20, n21, n22 = u2 * P0 + v2 * Q0, u2 * P1 + v2 * Q1, u2 * P2 + v2 * Q2
        gu0 = r00 * P0 + r01 * P1 + r02 * P2
        gu1 = r10 * P0 + r11 * P1 + r12 * P2
        gu2 = r20 * P0 + r21 * P1 + r22 * P2
        gv0 = r00 * Q0 + r01 * Q1 + r02 * Q2
        gv1 = r10 * Q0 + r11 * Q1 + r12 * Q2
        gv2 = r20 * Q0 + r21 * Q1 + r22 * Q2
        g_px, g_py = grad_means2d[i, 0], grad_means2d[i, 1]
        g_a = gu0 * w0 + gu1 * w1 + gu2 * w2 + g_px * x
        g_b = gv0 * t0 + gv1 * t1 + gv2 * t2 + g_py * y
        g_lx = -a * (gu0 * view[2, 0] + gu1 * view[2, 1] + gu2 * view[2, 2])
        g_ly = -b * (gv0 * view[2, 0] + gv1 * view[2, 1] + gv2 * view[2, 2])
        gx, gy = a * g_px, b * g_py
        g_rz = fx * g_a + fy * g_b
        if left < x * rz < right:
            gx += g_lx * rz
            g_rz += g_lx * x
        if top < y * rz < bottom:
            gy += g_ly * rz
            g_rz += g_ly * y
        gz = g_depth - rz * rz * g_rz
        grad_scales[i, 0] += n00 * R[0] + n10 * R[3] + n20 * R[6]
        grad_scales[i, 1] += n01 * R[1] + n11 * R[4] + n21 * R[7]
        grad_scales[i, 2] += n02 * R[2] + n12 * R[5] + n22 * R[8]
        n00, n10, n20 = n00 * s0, n10 * s0, n20 * s0
        n01, n11, n21 = n01 * s1, n11 * s1, n21 * s1
        n02, n12, n22 = n02 * s2, n12 * s2, n22 * s2
        gw = two * (qx * (n21 - n12) + qy * (n02 - n20) + qz * (n10 - n01))
        gi = two * (qy * (n10 + n01) + qz * (n20 + n02) + qw * (n21 - n12))
        gi -= two * two * qx * (n11 + n22)
        gj = two * (qx * (n10 + n01) + qz * (n21 + n12) + qw * (n02 - n20))
        gj -= two * two * qy * (n00 + n22)
        gk = two * (qx * (n20 + n02) + qy * (n21 + n12) + qw * (n10 - n01))
        gk -= two * two * qz * (n00 + n11)
        along = gw * qw + gi * qx + gj * qy + gk * qz
        grad_quats[i, 0] += (gw - along * qw) * n
        grad_quats[i, 1] += (gi - along * qx) * n
        grad_quats[i, 2] += (gj - along * qy) * n
        grad_quats[i, 3] += (gk - along * qz) * n
        h0, h1, h2 = f4(0), f4(0), f4(0)  # d loss / d (mean - camera centre)
        if sh_degree < 0:
            for j in range(last - 4):
                grad_colors[i, j, 0] += grad_records[i, 4 + j]
        else:
            # the clamp at 0 stops the gradient
            red = grad_records[i, 4] if records[i, 4] > f4(0) else f4(0)
            green = grad_records[i, 5] if records[i, 5] > f4(0) else f4(0)
            blue = grad_records[i, 6] if records[i, 6] > f4(0) else f4(0)
            d0, d1, d2 = m0 - centre[0], m1 - centre[1], m2 - centre[2]
            n = inverse_norm(d0 * d0 + d1 * d1 + d2 * d2)
            d0 *= n
            d1 *= n
            d2 *= n
            sh_basis(sh_degree, d0, d1, d2, basis)
            for k in range(count):
                weight[k] = red * colors[i, k, 0] + green * colors[i, k, 1] + blue * colors[i, k, 2]
                grad_colors[i, k, 0] += basis[k] * red
                grad_colors[i, k, 1] += basis[k] * green
                grad_colors[i, k, 2] += basis[k] * blue
            sh_direction_gradient(sh_degree, d0, d1, d2, weight, direction)
            along = direction[0] * d0 + direction[1] * d1 + direction[2] * d2
            h0 = (direction[0] - along * d0) * n
            h1 = (direction[1] - along * d1) * n
            h2 = (direction[2] - along * d2) * n
        grad_means[i, 0] += view[0, 0] * gx + view[1, 0] * gy + view[2, 0] * gz + h0
        grad_means[i, 1] += view[0, 1] * gx + view[1, 1] * gy + view[2, 1] * gz + h1
        grad_means[i, 2] += view[0, 2] * gx + view[1, 2] * gy + view[2, 2] * gz + h2
        # centre = -R^-1 t moves against R h: d centre = -R^-1 (dR centre + dt)
        o0 = view[0, 0] * h0 + view[0, 1] * h1 + view[0, 2] * h2
        o1 = view[1, 0] * h0 + view[1, 1] * h1 + view[1, 2] * h2
        o2 = view[2, 0] * h0 + view[2, 1] * h1 + view[2, 2] * h2
        gu0, gu1, gu2 = a * gu0, a * gu1, a * gu2
        gv0, gv1, gv2 = b * gv0, b * gv1, b * gv2
        view_sum[0, 0] += gx * m0 + gu0 + o0 * centre[0]
        view_sum[0, 1] += gx * m1 + gu1 + o0 * centre[1]
        view_sum[0, 2] += gx * m2 + gu2 + o0 * centre[2]
        view_sum[0, 3] += gx + o0
        view_sum[1, 0] += gy * m0 + gv0 + o1 * centre[0]
        view_sum[1, 1] += gy * m1 + gv1 + o1 * centre[1]
        view_sum[1, 2] += gy * m2 + gv2 + o1 * centre[2]
        view_sum[1, 3] += gy + o1
        view_sum[2, 0] += gz * m0 - lx * gu0 - ly * gv0 + o2 * centre[0]
        view_sum[2, 1] += gz * m1 - lx * gu1 - ly * gv1 + o2 * centre[1]
        view_sum[2, 2] += gz * m2 - lx * gu2 - ly * gv2 + o2 * centre[2]
        view_sum[2, 3] += gz + o2
    for r in range(3):
        for j in range(4):
            grad_view[piece, r, j] = view_sum[r, j]
