"""The specification of `rasterize`: every pixel against every Gaussian, in plain torch.

Slow on purpose and free of tricks: no tiles, no kernels, gradients by autograd, any dtype (tests
use float64). What this file computes is what every backend has to compute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from talkgs_cli.errors import UsageError
from talkgs_cli.rendering.request import Request

ALPHA_MAX = 0.999
ALPHA_MIN = 1 / 255
TRANSMITTANCE_MIN = 1e-4
EXTENT_MAX = 3.33
"""Standard deviations beyond which a Gaussian of opacity 1 falls below ALPHA_MIN."""

PIXELS_AT_ONCE = 1 << 22  # pixel-Gaussian pairs held in memory together


@dataclass
class Projected:
    """N Gaussians on the screen of one camera.

    Attributes:
        means2d: [N, 2] pixels.
        conics: [N, 3] xx, xy, yy of the inverse covariance.
        depths: [N] metres along the viewing axis.
        opacities: [N] after the antialiasing factor.
        radii: [N, 2] int32 pixels, 0 where not drawn.
    """

    means2d: Tensor
    conics: Tensor
    depths: Tensor
    opacities: Tensor
    radii: Tensor


def rotation_matrices(quats: Tensor) -> Tensor:
    """[N, 4] wxyz quaternions of any length to [N, 3, 3]; zero gives the identity."""
    squared = (quats**2).sum(-1, keepdim=True)
    w, x, y, z = (quats * torch.where(squared > 1e-24, squared, 1).rsqrt()).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics of [N, 3] unit vectors: [N, (degree + 1)^2].

    Sign and order as in 3D Gaussian Splatting (Sloan 2013, "Efficient Spherical Harmonic
    Evaluation").
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.2820947917738781)]
    if degree > 0:
        basis += [-0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x]
    if degree > 1:
        basis += [
            1.092548430592079 * x * y,
            -1.092548430592079 * y * z,
            0.9461746957575601 * z * z - 0.3153915652525201,
            -1.092548430592079 * x * z,
            0.5462742152960395 * (x * x - y * y),
        ]
    if degree > 2:
        ring = -2.285228997322329 * z * z + 0.4570457994644658
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            ring * y,
            z * (1.865881662950577 * z * z - 1.119528997770346),
            ring * x,
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, -1)


def sh_colors(degree: int, means: Tensor, coefficients: Tensor, viewmat: Tensor) -> Tensor:
    """[N, 3] colours seen from a camera, clamped at 0."""
    centre = -torch.linalg.inv(viewmat[:3, :3]) @ viewmat[:3, 3]
    rays = means - centre
    squared = (rays**2).sum(-1, keepdim=True)
    directions = rays * torch.where(squared > 1e-24, squared, 1).rsqrt()
    basis = sh_basis(degree, directions)  # [N, K]
    used = coefficients[:, : basis.shape[1]]
    return ((basis[..., None] * used).sum(1) + 0.5).clamp_min(0)


def project_gaussians(request: Request, viewmat: Tensor, K: Tensor) -> Projected:
    """First-order perspective projection of covariances (EWA splatting, Zwicker et al. 2001)."""
    means, quats, scales, opacities = (
        request.means, request.quats, request.scales, request.opacities,
    )  # fmt: skip
    width, height, eps2d = request.width, request.height, request.eps2d
    means_camera = means @ viewmat[:3, :3].T + viewmat[:3, 3]  # [N, 3]
    x, y, z = means_camera.unbind(-1)
    visible = (z > request.near_plane) & (z < request.far_plane)
    safe_z = torch.where(visible, z, 1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    # The slope in the Jacobian is clamped 30 % outside the view, or ellipses there would explode.
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = (x / safe_z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    slope_y = (y / safe_z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / safe_z, zero, -fx * slope_x / safe_z], -1),
            torch.stack([zero, fy / safe_z, -fy * slope_y / safe_z], -1),
        ],
        -2,
    )  # [N, 2, 3]
    axes = rotation_matrices(quats) * scales[:, None, :]  # [N, 3, 3]
    screen_axes = jacobian @ viewmat[:3, :3] @ axes  # [N, 2, 3]
    covariance = screen_axes @ screen_axes.transpose(1, 2)
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    sharp_det = xx * yy - xy * xy
    xx, yy = xx + eps2d, yy + eps2d
    det = xx * yy - xy * xy
    visible = visible & (det > 0)
    det = torch.where(visible, det, 1)
    if request.antialiased:
        ratio = sharp_det / det
        positive = ratio > 0
        opacities = opacities * torch.where(positive, torch.where(positive, ratio, 1).sqrt(), 0)
    means2d = torch.stack([fx * x / safe_z + cx, fy * y / safe_z + cy], -1)
    with torch.no_grad():
        extent = (2 * (255 * opacities).clamp_min(1).log()).sqrt().clamp_max(EXTENT_MAX)
        radii = torch.stack([(extent * xx.sqrt()).ceil(), (extent * yy.sqrt()).ceil()], -1)
        size = radii.new_tensor([width, height])
        inside = ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        visible = visible & (opacities >= ALPHA_MIN) & inside & (radii > 0).all(-1)
        radii = torch.where(visible[:, None], radii.clamp_max(1e9), 0).to(torch.int32)
    conics = torch.stack([yy / det, -xy / det, xx / det], -1)
    return Projected(means2d, conics, z, opacities, radii)


def blend_gaussians(
    projected: Projected, features: Tensor, background: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Blend [N, X] features front to back: image [H, W, X] and alpha [H, W, 1].

    A pixel is finished by the first Gaussian that would leave it a transmittance of at most
    TRANSMITTANCE_MIN; that Gaussian is not drawn.
    """
    drawn = (projected.radii > 0).all(-1).nonzero()[:, 0]
    drawn = drawn[torch.argsort(projected.depths[drawn].detach(), stable=True)]
    means2d, conics = projected.means2d[drawn], projected.conics[drawn]
    opacities, features = projected.opacities[drawn], features[drawn]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=means2d.dtype) + 0.5,
        torch.arange(width, dtype=means2d.dtype) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x, y], -1).reshape(-1, 2).to(means2d.device)  # [P, 2]
    images, alphas = [], []
    for chunk in pixels.split(max(1, PIXELS_AT_ONCE // max(1, len(drawn)))):
        dx, dy = (means2d[None] - chunk[:, None]).unbind(-1)  # [p, n]
        sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
        alpha = (opacities * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
        alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0)
        alive = torch.cumprod(1 - alpha.detach(), -1) > TRANSMITTANCE_MIN
        alpha = alpha * alive
        left = torch.cumprod(1 - alpha, -1)
        left = torch.cat([torch.ones_like(chunk[:, :1]), left], -1)  # [p, n + 1]
        images.append((alpha * left[:, :-1]) @ features + left[:, -1:] * background)
        alphas.append(1 - left[:, -1:])
    return (
        torch.cat(images).reshape(height, width, -1),
        torch.cat(alphas).reshape(height, width, 1),
    )


def render(request: Request) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Image [C, H, W, X], alpha [C, H, W, 1] and what `rasterize` tells of the projection."""
    if request.absgrad:
        raise UsageError("The reference backend can't do absgrad.")
    screens = [
        project_gaussians(request, viewmat, K)
        for viewmat, K in zip(request.viewmats, request.Ks, strict=True)
    ]
    meta = {
        name: torch.stack([getattr(screen, name) for screen in screens])
        for name in ("means2d", "radii", "depths", "conics", "opacities")
    }
    images, alphas = [], []
    for camera, background in enumerate(request.full_backgrounds()):
        # the stacked means2d has to lie between inputs and image to get a gradient
        screen = replace(screens[camera], means2d=meta["means2d"][camera])
        features = torch.cat(_features(request, camera, screen), 1)  # [N, X]
        image, alpha = blend_gaussians(screen, features, background, request.width, request.height)
        images.append(image)
        alphas.append(alpha)
    return torch.stack(images), torch.stack(alphas), meta


def _features(request: Request, camera: int, screen: Projected) -> list[Tensor]:
    features = []
    if request.draws_color and request.sh_degree is None:
        features.append(request.colors)
    elif request.draws_color and request.sh_degree is not None:
        viewmat = request.viewmats[camera]
        features.append(sh_colors(request.sh_degree, request.means, request.colors, viewmat))
    if request.draws_depth:
        features.append(screen.depths[:, None])
    return features
