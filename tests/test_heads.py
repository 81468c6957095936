from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from talkgs_cli import assets
from talkgs_cli.errors import UsageError
from talkgs_cli.heads import load_head
from talkgs_cli.heads.jaw import fit_jaw, rotate_jaw
from talkgs_cli.heads.makehuman import FACE_UNITS, MakeHumanArchive
from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.types import REGIONS

UPPER_LIP, LOWER_LIP, CHIN = 13, 14, 152


@pytest.fixture(scope="module")
def head(require_assets) -> OpenHead:
    require_assets("makehuman")
    return OpenHead.load()


@pytest.fixture(scope="module")
def makehuman_folder(require_assets) -> Path:
    require_assets("makehuman")
    return assets.fetch("makehuman")


def posed(head, opening=0.0, shape=None, jaw=None, **units):
    expression = torch.zeros(1, head.expression_count)
    for name, value in units.items():
        expression[0, head.expression_names.index(name)] = value
    jaw = torch.tensor([[opening, 0.0, 0.0]]) if jaw is None else jaw
    shape = torch.zeros(head.shape_count) if shape is None else shape
    return head.vertices(shape, expression, jaw)[0]


def marks(head, vertices):
    return (vertices[head.landmark_vertices] * head.landmark_weights[..., None]).sum(1)


def vertices_of(head, region):
    return torch.unique(head.faces[head.face_regions == REGIONS.index(region)])


def test_every_region_and_every_landmark_is_there(head):
    assert set(head.face_regions.tolist()) == set(range(len(REGIONS)))
    assert sorted(head.landmark_index.tolist()) == list(range(478))
    assert head.faces.max() < len(head.template)
    torch.testing.assert_close(head.landmark_weights.sum(1), torch.ones(478))


def test_it_is_a_life_size_head_that_faces_z_with_its_left_at_x(head):
    points = marks(head, head.template)
    outer_eye_left, outer_eye_right, nose_tip = points[263], points[33], points[4]
    assert 0.075 < float((outer_eye_left - outer_eye_right).norm()) < 0.105
    assert outer_eye_left[0] > 0 > outer_eye_right[0]
    assert nose_tip[2] > points[[33, 263, 234, 454], 2].max()
    assert points[10, 1] > points[CHIN, 1]  # forehead above chin


def test_front_faces_are_counter_clockwise_from_outside(head):
    a, b, c = (head.template[head.faces[:, k]] for k in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    nose = (head.landmark_vertices[4][None, :] == head.faces[:, :1]).any(1)
    assert (normal[nose, 2] > 0).all()


def test_the_jaw_opens_downwards_and_leaves_the_skull_alone(head):
    closed, opened = posed(head), posed(head, 0.3)
    moved = marks(head, opened) - marks(head, closed)
    assert moved[LOWER_LIP, 1] < -0.015
    assert moved[CHIN, 1] < -0.015
    assert moved[CHIN, 2] < 0  # the chin swings back
    assert abs(float(moved[UPPER_LIP, 1])) < 0.003
    for region in ("upper_teeth", "eyes"):
        still = vertices_of(head, region)
        torch.testing.assert_close(opened[still], closed[still], atol=2e-4, rtol=0)


def test_at_the_reference_opening_the_jaw_open_shape_comes_out(head):
    with MakeHumanArchive(assets.fetch_file("makehuman")) as archive:
        unit = archive.target(FACE_UNITS + "jawOpen.target", 19158)
    wanted = torch.from_numpy(unit[head.body_vertices.numpy()] * 0.1).float()
    moved = posed(head, float(head.jaw_reference_rad)) - posed(head)
    skin = torch.ones(len(moved), dtype=torch.bool)
    for region in ("lower_teeth", "tongue"):
        skin[vertices_of(head, region)] = False
    torch.testing.assert_close(moved[skin], wanted[skin], atol=1e-5, rtol=0)
    assert float((moved - wanted).norm(dim=1).max()) < 0.0015  # teeth and tongue: the best turn


@pytest.mark.parametrize("region", ["upper_teeth", "lower_teeth"])
def test_teeth_are_bone(head, region):
    teeth = vertices_of(head, region)
    generator = torch.Generator().manual_seed(0)
    expression = torch.rand(1, head.expression_count, generator=generator)
    jaw = torch.tensor([[0.3, 0.05, -0.03]])
    moved = head.vertices(torch.zeros(head.shape_count), expression, jaw)[0, teeth]
    before = torch.cdist(head.template[teeth], head.template[teeth])
    torch.testing.assert_close(torch.cdist(moved, moved), before, atol=1e-4, rtol=0)


def test_swinging_the_jaw_to_its_left_moves_the_chin_to_the_left(head):
    swung = marks(head, posed(head, jaw=torch.tensor([[0.0, 0.08, 0.0]])))
    assert swung[CHIN, 0] > 0.004


def test_closed_lips_touch_and_part_with_the_jaw(head):
    gap = {
        opening: float(points[UPPER_LIP, 1] - points[LOWER_LIP, 1])
        for opening in (0.0, 0.1, 0.3)
        for points in [marks(head, posed(head, opening))]
    }
    assert 0 <= gap[0.0] < 0.002
    assert gap[0.1] > gap[0.0] + 0.005
    assert gap[0.3] > gap[0.1] + 0.01


def test_a_full_blink_closes_the_lids(head):
    points = marks(head, posed(head, eyeBlinkLeft=0.8))
    assert float(points[386, 1] - points[374, 1]) < 0.001  # the left eye, at +x
    assert float(points[159, 1] - points[145, 1]) > 0.006  # the right eye stays open


def test_the_landmark_table_is_mirror_symmetric(head):
    points = marks(head, head.template)[:468]
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    assert float(torch.cdist(points, mirrored).min(dim=1).values.max()) < 0.001


def test_speech_moves_the_mouth_units_and_no_others(head):
    mouth = {n for n, m in zip(head.expression_names, head.mouth_expression, strict=True) if m}
    assert {"mouthClose", "tongueOut", "cheekPuff", "jawForward"} <= mouth
    assert not any(name.startswith(("brow", "eye", "nose", "cheekSquint")) for name in mouth)
    assert not {"jawOpen", "jawLeft", "jawRight"} & set(head.expression_names)


def test_identity_modes_are_ordered_and_keep_the_head_in_place(head):
    spread = head.shape_basis.square().sum(dim=(1, 2))
    assert (spread[1:] <= spread[:-1] * (1 + 1e-5)).all()
    assert 30 <= head.shape_count <= 40


def test_settled_and_partial_heads_agree_with_the_whole(head):
    generator = torch.Generator().manual_seed(1)
    shape = torch.randn(head.shape_count, generator=generator) * 0.5
    expression = torch.rand(3, head.expression_count, generator=generator)
    jaw = torch.rand(3, 3, generator=generator) * 0.2
    whole = head.vertices(shape, expression, jaw)
    some = torch.tensor([5, 900, 17, 4000])
    part = head.settle(shape).only(some).vertices(torch.zeros(0), expression, jaw)
    torch.testing.assert_close(part, whole[:, some], atol=1e-6, rtol=0)
    batched = head.vertices(shape.expand(3, -1), expression, jaw)
    torch.testing.assert_close(batched, whole, atol=1e-6, rtol=0)


def test_a_speakers_landmarks_lie_on_its_vertices_and_have_gradients(head):
    generator = torch.Generator().manual_seed(2)
    shape = torch.randn(head.shape_count, generator=generator) * 0.3
    basis = torch.randn(4, len(head.template), 3, generator=generator) * 1e-3
    speaker = SpeakerHead(head, shape, basis)
    expression = torch.rand(2, head.expression_count, generator=generator, requires_grad=True)
    jaw = torch.zeros(2, 3, requires_grad=True)
    corrective = torch.rand(2, 4, generator=generator, requires_grad=True)
    vertices = speaker.vertices(expression, jaw, corrective)
    plain = head.vertices(shape, expression, jaw)
    torch.testing.assert_close(
        vertices - plain, torch.einsum("bc,cvd->bvd", corrective, basis), atol=1e-6, rtol=0
    )
    landmarks = speaker.landmarks(expression, jaw, corrective)
    for frame in range(2):
        torch.testing.assert_close(landmarks[frame], marks(head, vertices[frame]))
    landmarks.square().sum().backward()
    for leaf in (expression, jaw, corrective):
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().sum() > 0


def test_rotating_the_jaw_is_a_rotation_by_the_weighted_angle():
    generator = np.random.default_rng(3)
    arms, jaw = generator.normal(size=(5, 3)), np.array([0.3, -0.1, 0.05])
    weights = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    turned = rotate_jaw(
        torch.from_numpy(arms)[None], torch.from_numpy(jaw)[None], torch.from_numpy(weights)
    )[0]
    for arm, weight, result in zip(arms, weights, turned.numpy(), strict=True):
        np.testing.assert_allclose(result, Rotation.from_rotvec(weight * jaw).apply(arm), atol=1e-9)


def test_a_known_hinge_and_angle_are_found_again():
    generator = np.random.default_rng(4)
    points = generator.uniform(-1, 1, (40, 3))
    points = np.concatenate([points, points * np.array([-1, 1, 1])])
    hinge, angle = np.array([0.0, 0.3, -0.8]), 0.4
    share = np.tile(np.linspace(0, 1.5, 40).clip(0, 1), 2)
    opened = np.stack(
        [
            Rotation.from_rotvec([s * angle, 0, 0]).apply(p - hinge) + hinge - p
            for s, p in zip(share, points, strict=True)
        ]
    )
    rig = fit_jaw(points, opened, rigid=share == 1)
    np.testing.assert_allclose(rig.hinge, hinge, atol=1e-6)
    assert rig.reference_rad == pytest.approx(angle)
    np.testing.assert_allclose(rig.weights, share, atol=0.004)


def test_the_head_is_built_once_and_a_damaged_cache_is_replaced(makehuman_folder, empty_cache):
    empty_cache.mkdir()
    (empty_cache / "makehuman").symlink_to(makehuman_folder)
    first = OpenHead.load()
    (file,) = (empty_cache / "open_head").iterdir()
    written = file.stat().st_mtime_ns
    OpenHead.load()
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"not a safetensors file")
    torch.testing.assert_close(OpenHead.load().template, first.template)


def test_a_head_nobody_knows_is_refused():
    with pytest.raises(UsageError, match="no head model"):
        load_head("clay")


@pytest.mark.slow
def test_the_shipped_table_is_what_the_derivation_gives(head, require_assets):
    from talkgs_cli.heads.derive_anatomy import bare_head, derive_anatomy
    from talkgs_cli.landmark_points import LIPS_INNER, LIPS_OUTER
    from talkgs_cli.rendering.mesh import rasterize_mesh
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    require_assets("face_landmarker")
    landmarker = FaceLandmarker(assets.fetch_file("face_landmarker"))

    def detect(image):
        landmarker.reset()
        seen = [landmarker.track(image) for _ in range(3)][-1]
        return None if seen is None else seen.landmarks

    bare = bare_head()
    derived = derive_anatomy(bare, detect, rasterize_mesh, LIPS_OUTER, LIPS_INNER)
    place = {int(vertex): index for index, vertex in enumerate(bare.body_vertices)}
    corners = np.vectorize(place.__getitem__)(derived.corners)
    points = np.einsum("lkc,lk->lc", head.template.numpy()[corners], derived.weights)
    apart = np.linalg.norm(points - marks(head, head.template).numpy(), axis=1)
    assert apart.mean() < 0.0005
    regions = head.face_regions.numpy()[::2]
    assert (derived.quad_regions == regions).mean() > 0.98
