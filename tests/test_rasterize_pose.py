"""The fused pose is `GaussianHead.forward`: values and gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from talkgs_cli.rendering.binding import quat_multiply, triangle_frames
from talkgs_cli.rendering.fused_pose import fused_pose

UNIT = 7e-4


def inputs(count: int = 3000) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    vertices = torch.randn(400, 3, generator=g) * 0.05
    triangles = torch.randint(0, 400, (count, 3), generator=g)
    triangles[0] = triangles[0, 0]  # a collapsed one
    fixed = {"triangles": triangles, "areas": 1e-3 + 5e-3 * torch.rand(count, generator=g)}
    shapes = {
        "barycentric": (2,), "offset": (), "quats": (4,), "turns": (4,), "log_scales": (3,),
        "opacity_logits": (), "sh0": (1, 3), "color_shifts": (3,), "shN": (8, 3), "moves": (3,),
    }  # fmt: skip
    learnt = {name: torch.randn(count, *shape, generator=g) for name, shape in shapes.items()}
    return fixed, {"vertices": vertices, **learnt}


def plain(fixed: dict[str, Tensor], p: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What `GaussianHead.forward` does, with one triangle per Gaussian."""
    corners = p["vertices"][fixed["triangles"]]
    with torch.no_grad():
        frames = triangle_frames(corners)
        size = (frames.areas / fixed["areas"]).sqrt().clamp(0.4, 1.6)[:, None] * UNIT
    u, v = p["barycentric"][:, :1], p["barycentric"][:, 1:]
    means = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
    means = means + (p["offset"] * UNIT)[:, None] * frames.normals + p["moves"] * UNIT
    quats = quat_multiply(frames.quats, F.normalize(p["quats"] + p["turns"], dim=-1))
    colors = torch.cat([p["sh0"] + p["color_shifts"][:, None], p["shN"]], dim=1)
    scales = p["log_scales"].exp() * size
    return means, quats, scales, p["opacity_logits"].sigmoid(), colors


def test_values_and_gradients_are_those_of_plain_torch() -> None:
    fixed, learnt = inputs()
    results = []
    for double in (False, True):
        p = {k: (v.double() if double else v.clone()).requires_grad_() for k, v in learnt.items()}
        if double:
            outputs = plain({k: v.double() if v.is_floating_point() else v
                             for k, v in fixed.items()}, p)  # fmt: skip
        else:
            outputs = fused_pose(p.pop("vertices"), fixed["triangles"], fixed["areas"], UNIT, **p)
            p["vertices"] = outputs[0].grad_fn.next_functions[0][0].variable  # type: ignore[union-attr]
        sign = torch.ones_like(outputs[1][:, :1])
        if results:  # q and -q turn alike
            sign = torch.where((outputs[1] * results[0][0][1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
        outputs = (outputs[0], outputs[1] * sign, *outputs[2:])
        total = outputs[0].new_zeros(())
        for k, output in enumerate(outputs):
            g = torch.Generator().manual_seed(k)
            total = total + (output * torch.randn(output.shape, generator=g).to(output)).sum()
        total.backward()
        results.append(([o.detach() for o in outputs], {k: v.grad for k, v in p.items()}))
    for found, wanted in zip(results[0][0], results[1][0], strict=True):
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
    for name, wanted in results[1][1].items():
        found = results[0][1][name]
        assert found is not None
        assert wanted is not None
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 2e-5, name
