"""Claims about Gaussians that follow triangles."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from talkgs_cli.rendering.binding import matrix_to_quat, quat_multiply, triangle_frames
from talkgs_cli.rendering.gaussian_head import GaussianHead

TRIANGLE = torch.tensor([[0.0, 0, 0], [0.02, 0, 0], [0, 0.01, 0]])


def head_on_one_triangle(count: int = 5, *, rigid: bool = False) -> GaussianHead:
    torch.manual_seed(0)
    head = GaussianHead(
        triangles=torch.tensor([[0, 1, 2]]),
        reference_areas=torch.tensor([1e-4]),
        binding=torch.zeros(count, dtype=torch.long),
        barycentric=torch.full((count, 2), 0.25),
        scales_px=torch.ones(count),
        colors=torch.rand(count, 3),
        offset_limit_px=torch.full((count,), 2.0),
        sh_degree=1,
        metres_per_pixel=0.001,
        rigid=torch.tensor([rigid]),
    )
    with torch.no_grad():
        head.offset.copy_(torch.arange(count).float())
        head.position_basis.zero_()
        head.rotation_basis.zero_()
    return head


def test_a_triangle_in_the_plane_has_its_normal_and_area():
    frames = triangle_frames(TRIANGLE[None])
    assert torch.allclose(frames.normals[0], torch.tensor([0.0, 0, 1]))
    assert frames.areas[0] == pytest.approx(1e-4)
    assert torch.allclose(frames.quats[0].abs(), torch.tensor([1.0, 0, 0, 0]), atol=1e-6)


def test_a_collapsed_triangle_leaves_its_gaussians_unrotated():
    frames = triangle_frames(torch.zeros(1, 3, 3))
    assert torch.isfinite(frames.quats).all()
    assert torch.allclose(frames.quats[0].abs(), torch.tensor([1.0, 0, 0, 0]), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_quaternions_agree_with_scipy(seed: int):
    rotations = Rotation.random(50, random_state=seed)
    ours = matrix_to_quat(torch.from_numpy(rotations.as_matrix()))
    theirs = torch.from_numpy(rotations.as_quat()[:, [3, 0, 1, 2]])
    assert ((ours * theirs).sum(1).abs() - 1).abs().max() < 1e-9
    half_turns = Rotation.from_rotvec(math.pi * torch.eye(3).numpy())
    turned = matrix_to_quat(torch.from_numpy(half_turns.as_matrix()))
    assert torch.allclose(turned.abs()[:, 1:], torch.eye(3, dtype=torch.float64), atol=1e-7)
    both = quat_multiply(ours[:25], ours[25:])
    product = torch.from_numpy((rotations[:25] * rotations[25:]).as_quat()[:, [3, 0, 1, 2]])
    assert ((both * product).sum(1).abs() - 1).abs().max() < 1e-9


def test_gaussians_turn_and_move_with_their_triangle():
    head = head_on_one_triangle()
    code = torch.zeros(16)
    turn = torch.from_numpy(Rotation.from_euler("xyz", [0.3, -0.5, 1.1]).as_matrix()).float()
    shift = torch.tensor([0.1, -0.2, 0.3])
    with torch.no_grad():
        at_rest, moved = head(TRIANGLE, code), head(TRIANGLE @ turn.T + shift, code)
    assert torch.allclose(at_rest.means @ turn.T + shift, moved.means, atol=1e-6)
    assert torch.allclose(at_rest.scales, moved.scales, atol=1e-7)
    expected = Rotation.from_matrix(turn.double().numpy()) * Rotation.from_quat(
        at_rest.quats.double().numpy()[:, [1, 2, 3, 0]]
    )
    expected = torch.from_numpy(expected.as_quat()[:, [3, 0, 1, 2]]).float()
    assert ((expected * moved.quats).sum(1).abs() - 1).abs().max() < 1e-5


def test_offsets_are_pixels_along_the_normal():
    head = head_on_one_triangle()
    with torch.no_grad():
        means = head(TRIANGLE, torch.zeros(16)).means
    assert torch.allclose(means[:, 2], torch.arange(5) * 0.001, atol=1e-7)


def test_a_stretched_triangle_stretches_its_gaussians_within_limits():
    head = head_on_one_triangle()
    code = torch.zeros(16)
    with torch.no_grad():
        small, large = head(TRIANGLE, code).scales, head(TRIANGLE * 1.2, code).scales
        huge = head(TRIANGLE * 50, code).scales
    assert torch.allclose(large / small, torch.full_like(small, 1.2), atol=1e-4)
    assert torch.allclose(huge / small, torch.full_like(small, 1.6), atol=1e-4)


def test_a_head_is_rebuilt_from_its_state():
    head = head_on_one_triangle()
    again = GaussianHead.from_state(head.state_dict())
    code = torch.randn(16)
    with torch.no_grad():
        for one, other in zip(
            vars(head(TRIANGLE, code)).values(), vars(again(TRIANGLE, code)).values(), strict=True
        ):
            assert torch.equal(one, other)


def test_blendshapes_colour_teeth_but_never_move_them():
    head = head_on_one_triangle(rigid=True)
    with torch.no_grad():
        for basis in (head.position_basis, head.rotation_basis, head.color_basis):
            basis.normal_()
    still, spoken = (head(TRIANGLE, code) for code in (torch.zeros(16), torch.ones(16)))
    assert torch.equal(still.means, spoken.means)
    assert torch.equal(still.quats, spoken.quats)
    assert not torch.allclose(still.colors, spoken.colors)


def test_a_state_from_before_there_were_rigid_triangles_still_loads():
    head = head_on_one_triangle()
    state = {name: value for name, value in head.state_dict().items() if name != "rigid"}
    assert not GaussianHead.from_state(state).rigid.any()


def test_gradients_reach_vertices_and_bases():
    head = head_on_one_triangle()
    vertices = TRIANGLE.clone().requires_grad_()
    head(vertices, torch.randn(16)).means.square().sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.abs().sum() > 0
    assert head.position_basis.grad is not None
    assert head.w_pos.weight.grad is not None


def test_both_ways_of_posing_agree():
    head = head_on_one_triangle(50)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        code = torch.randn(16)
        fast, slow = head(TRIANGLE, code), head.double()(TRIANGLE.double(), code.double())
    for name, wanted in vars(slow).items():
        found = getattr(fast, name).double()
        if name == "quats":  # q and -q turn alike
            found = found * torch.sign((found * wanted).sum(1, keepdim=True))
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6), name
