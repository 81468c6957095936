"""A FLAME file becomes a head like the open one. The file is made from the open head."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import test_heads
import torch
from flame_file import flame_arrays, write_flame
from scipy.spatial.transform import Rotation
from test_heads import marks, posed, vertices_of
from typer.testing import CliRunner

from talkgs_cli import assets
from talkgs_cli.app import app
from talkgs_cli.config import PrepareConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.heads import load_head
from talkgs_cli.heads.flame import EMBEDDING, FlameHead, cached_file
from talkgs_cli.heads.flame_import import KEYS, _with_embedding, bare_head, read_arrays
from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages.flame import convert_flame
from talkgs_cli.types import REGIONS

IDENTITY_DEVIATIONS = 0.5

# What is true of any head is tried on this module's `head` too.
test_speaker = test_heads.test_a_speakers_landmarks_lie_on_its_vertices_and_have_gradients
test_lips = test_heads.test_closed_lips_touch_and_part_with_the_jaw
test_faces = test_heads.test_front_faces_are_counter_clockwise_from_outside
test_size = test_heads.test_it_is_a_life_size_head_that_faces_z_with_its_left_at_x
test_swing = test_heads.test_swinging_the_jaw_to_its_left_moves_the_chin_to_the_left
test_jaw = test_heads.test_the_jaw_opens_downwards_and_leaves_the_skull_alone


@pytest.fixture(scope="module")
def cache(require_assets, tmp_path_factory):
    """A cache with everything of the real one but FLAME heads."""
    require_assets("makehuman", "face_landmarker")
    real, mine = assets.cache_dir(), tmp_path_factory.mktemp("cache")
    for name in {entry.name for entry in real.iterdir() if entry.is_dir()} - {"flame"}:
        (mine / name).symlink_to(real / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKGS_CACHE", str(mine))
        yield mine


@pytest.fixture(scope="module")
def open_head(cache) -> OpenHead:
    return OpenHead.load()


@pytest.fixture(scope="module")
def arrays(open_head) -> dict:
    """A FLAME file whose average person is not the open head's."""
    generator = torch.Generator().manual_seed(2)
    identity = IDENTITY_DEVIATIONS * torch.randn(open_head.shape_count, generator=generator)
    return {**flame_arrays(open_head, identity), "identity": identity}


@pytest.fixture(scope="module")
def flame_file(arrays, tmp_path_factory) -> Path:
    wanted = {key: value for key, value in arrays.items() if key in (*KEYS, "bs_style")}
    return write_flame(tmp_path_factory.mktemp("flame") / "generic model é.pkl", wanted)


@pytest.fixture(scope="module")
def converted(flame_file, cache) -> dict:
    return convert_flame(flame_file, SilentProgress())


@pytest.fixture(scope="module")
def head(converted) -> FlameHead:
    return load_head(converted["head"])


def spoiled(arrays, **changes):
    return {**{key: arrays[key] for key in KEYS}, **changes}


def true_marks(head, open_head, arrays, vertices):
    """[478, 3] the open head's landmarks, on the same vertices of the FLAME head."""
    place = {int(vertex): row for row, vertex in enumerate(arrays["kept_vertices"])}
    corners = [[place[int(vertex)] for vertex in row] for row in open_head.landmark_vertices]
    return (vertices[torch.tensor(corners)] * open_head.landmark_weights[..., None]).sum(1)


def skinned(arrays, shape, expression, jaw, left_eye, right_eye):
    """FLAME as its paper says, all five joints, in plain NumPy: [V, 3] in the file's own frame."""
    betas = np.zeros(400)
    betas[: len(shape)], betas[300 : 300 + len(expression)] = shape, expression
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["J_regressor"] @ shaped
    turns = Rotation.from_rotvec([[0, 0, 0], [0, 0, 0], jaw, left_eye, right_eye]).as_matrix()
    feature = (turns[1:] - np.eye(3)).reshape(36)
    rest = shaped + arrays["posedirs"] @ feature
    to_world = []
    for joint, parent in enumerate([-1, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        to_world.append(local if parent < 0 else to_world[parent] @ local)
    for joint, matrix in enumerate(to_world):
        matrix[:3, 3] -= matrix[:3, :3] @ joints[joint]
    blended = np.einsum("vj,jrc->vrc", arrays["weights"], np.stack(to_world))
    return np.einsum("vrc,vc->vr", blended, np.c_[rest, np.ones(len(rest))])[:, :3]


def test_it_poses_as_an_independent_implementation_does(arrays):
    generator = np.random.default_rng(0)
    posedirs = generator.normal(size=arrays["posedirs"].shape) * 0.01
    arrays = spoiled(arrays, posedirs=posedirs, J_regressor=arrays["J_regressor"].toarray())
    head = bare_head("0" * 12, arrays, Path("model.pkl"))
    shape, expression = generator.normal(size=100), generator.normal(size=50) * 0.5
    jaw, left, right = [0.3, -0.08, 0.04], [0.1, 0.3, 0], [-0.2, -0.1, 0]
    wanted = skinned(arrays, shape, expression, jaw, left, right)
    coefficients = np.concatenate([expression, left[:2], right[:2]])
    ours = head.vertices(
        torch.from_numpy(shape).float(),
        torch.from_numpy(coefficients).float()[None],
        torch.tensor([jaw]),
    )[0]
    apart = ours.numpy() - wanted
    np.testing.assert_allclose(apart - apart.mean(0), 0, atol=3e-6)
    # The origin is where the open head has its own: behind and below the eyes.
    eyes = head.joints[1:].mean(0)
    torch.testing.assert_close(eyes, torch.tensor([0, 0.030, 0.075]), atol=1e-6, rtol=0)
    np.testing.assert_allclose(
        apart.mean(0), head.template[0].numpy() - arrays["v_template"][0], atol=3e-6
    )


def test_sizes_are_flames_and_its_coordinates_have_no_arkit_names(head, arrays):
    assert (head.shape_count, head.expression_count) == (100, 54)
    assert len(head.template) == len(arrays["v_template"])
    assert head.blendshape_names == ("",) * 54
    assert head.expression_range.shape == (54, 2)
    assert (head.expression_range[:, 0] == -head.expression_range[:, 1]).all()
    assert head.name == f"flame:{head.key}"
    assert len(head.key) == 12


def test_every_landmark_is_there_and_no_region_flame_lacks(head):
    assert sorted(head.landmark_index.tolist()) == list(range(478))
    torch.testing.assert_close(head.landmark_weights.sum(1), torch.ones(478))
    named = {REGIONS[region] for region in head.face_regions.unique()}
    assert named == {"skin", "lips", "eyes", "ears", "scalp", "neck"}


def test_settled_and_partial_heads_agree_with_the_whole(head):
    generator = torch.Generator().manual_seed(1)
    shape = torch.randn(head.shape_count, generator=generator) * 0.5
    expression = torch.rand(3, head.expression_count, generator=generator)
    jaw = torch.rand(3, 3, generator=generator) * 0.2
    whole = head.vertices(shape, expression, jaw)
    some = torch.tensor([5, 900, 17, len(head.template) - 1])
    part = head.settle(shape).only(some).vertices(torch.zeros(0), expression, jaw)
    torch.testing.assert_close(part, whole[:, some], atol=1e-6, rtol=0)
    batched = head.vertices(shape.expand(3, -1), expression, jaw)
    torch.testing.assert_close(batched, whole, atol=1e-6, rtol=0)


def test_gaze_turns_the_eyeball_down_and_to_the_subjects_left_and_moves_no_skin(head):
    still = posed(head)
    moved = posed(head, gazeLeftPitch=0.3)
    eye = vertices_of(head, "eyes")
    left = eye[head.template[eye, 0] > 0]
    assert (marks(head, moved) - marks(head, still))[473, 1] < -0.002
    torch.testing.assert_close(
        torch.cdist(moved[left], moved[left]),
        torch.cdist(still[left], still[left]),
        atol=1e-4,
        rtol=0,
    )
    assert (marks(head, posed(head, gazeRightYaw=0.3)) - marks(head, still))[468, 0] > 0.002
    assert float((moved - still)[vertices_of(head, "lips")].abs().max()) < 1e-6


def test_landmarks_seen_in_pictures_are_where_they_belong(head, open_head, arrays):
    assert head.table == "derived"
    apart = (marks(head, head.template) - true_marks(head, open_head, arrays, head.template)).norm(
        dim=1
    )
    lips = [13, 14, 78, 308, 0, 17, 61, 291]
    assert float(apart[:468].mean()) < 0.002
    assert float(apart[lips].mean()) < 0.002
    assert float(apart[468:].mean()) < 0.002


def test_without_a_face_in_the_pictures_the_open_head_lends_its_landmarks(
    flame_file, open_head, arrays
):
    from talkgs_cli.heads.flame_anatomy import find_landmarks
    from talkgs_cli.landmark_points import LIPS_INNER
    from talkgs_cli.rendering.mesh import rasterize_mesh

    bare = bare_head("0" * 12, read_arrays(flame_file), flame_file)
    head = find_landmarks(bare, open_head, lambda image: None, rasterize_mesh, LIPS_INNER)
    assert head.table == "transferred"
    apart = (marks(head, head.template) - true_marks(head, open_head, arrays, head.template)).norm(
        dim=1
    )
    assert float(apart.mean()) < 0.003


def test_regions_are_lent_by_the_open_head(head, open_head):
    regions = open_head.face_regions
    absent = ("upper_teeth", "lower_teeth", "tongue", "mouth_interior")
    kept = ~torch.isin(regions, torch.tensor([REGIONS.index(name) for name in absent]))
    agree = (head.face_regions == regions[kept]).float().mean()
    assert agree > 0.9


def test_speech_moves_the_coordinates_of_the_mouth(head, open_head):
    names = open_head.expression_names
    ours = head.mouth_expression[: len(names)]
    wrong = {n for n, a, b in zip(names, ours, open_head.mouth_expression, strict=True) if a != b}
    # There is no tongue here; the others lie on the border.
    assert wrong <= {"tongueOut", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft"}
    assert not head.mouth_expression[-4:].any()  # gaze


def test_it_is_converted_once_and_found_by_what_is_in_the_file(converted, flame_file, tmp_path):
    path = Path(converted["file"])
    written = path.stat().st_mtime_ns
    elsewhere = tmp_path / "renamed.pkl"
    elsewhere.write_bytes(flame_file.read_bytes())
    assert convert_flame(elsewhere, SilentProgress()) == converted
    assert path.stat().st_mtime_ns == written
    assert load_head(f"flame:{elsewhere}").name == converted["head"]


def test_a_head_that_is_not_in_the_cache_is_an_error_that_names_the_fix(cache):
    with pytest.raises(BadInput, match="not in the cache") as error:
        load_head("flame:0123456789ab")
    assert "talkgs assets --flame" in error.value.hint
    with pytest.raises(BadInput, match="no FLAME file"):
        load_head("flame:/nowhere/generic_model.pkl")


def test_a_damaged_cache_is_an_error_and_converting_again_mends_it(converted, flame_file, head):
    path = cached_file(head.key)
    path.write_bytes(path.read_bytes()[:1_000_000])
    with pytest.raises(BadInput, match="damaged"):
        load_head(head.name)
    assert convert_flame(flame_file, SilentProgress()) == converted
    mended = load_head(head.name)
    for name, value in vars(head).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(mended, name), value, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_other_formats_hold_the_same_head(arrays, flame_file, suffix, tmp_path):
    from safetensors.numpy import save_file

    plain = {key: np.asarray(read_arrays(flame_file)[key]) for key in KEYS}
    path = tmp_path / f"flame{suffix}"
    if suffix == ".npz":
        np.savez(path, **plain)
    else:
        save_file({key: np.ascontiguousarray(value) for key, value in plain.items()}, path)
    read = read_arrays(path)
    for key in KEYS:
        np.testing.assert_array_equal(read[key], plain[key])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"v_template": lambda a: a["v_template"] * 1000}, "apart"),
        ({"kintree_table": lambda a: a["kintree_table"][:, :4]}, "kintree_table"),
        ({"posedirs": lambda a: a["posedirs"][:, :, :9]}, "posedirs"),
        ({"shapedirs": lambda a: a["shapedirs"][:, :, :10]}, "10 shape directions"),
        ({"f": lambda a: a["f"] + 90_000}, "mesh"),
        ({"weights": lambda a: a["weights"] * np.nan}, "mesh"),
    ],
)
def test_models_that_are_not_flame_are_refused(arrays, changes, says):
    wrong = spoiled(arrays, **{key: change(arrays) for key, change in changes.items()})
    wrong["J_regressor"] = arrays["J_regressor"].toarray()
    with pytest.raises(BadInput, match=says):
        bare_head("0" * 12, wrong, Path("model.pkl"))


def test_a_file_without_an_array_is_refused_by_name(arrays, tmp_path):
    few = {key: arrays[key] for key in ("v_template", "f")}
    path = write_flame(tmp_path / "few.pkl", few)
    with pytest.raises(BadInput, match="shapedirs, posedirs"):
        read_arrays(path)


def test_a_landmark_embedding_beside_the_file_is_used(flame_file, head, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(flame_file.read_bytes())
    weights = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    np.savez(
        tmp_path / EMBEDDING,
        lmk_face_idx=np.array([17, 40]),
        lmk_b_coords=weights,
        landmark_indices=np.array([4, 152]),
    )
    answer = convert_flame(path, SilentProgress())
    with_embedding = load_head(answer["head"])
    assert answer["landmarks"] == "derived+embedding"
    assert answer["head"] != head.name
    assert with_embedding.landmark_vertices[4].tolist() == head.faces[17].tolist()
    np.testing.assert_allclose(with_embedding.landmark_weights[[4, 152]].numpy(), weights)
    same = [mark for mark in range(478) if mark not in (4, 152)]
    assert (with_embedding.landmark_vertices[same] == head.landmark_vertices[same]).all()


def _damaged(content, path):
    buffer = io.BytesIO()
    if content == "array":
        np.save(buffer, np.zeros(3))
    elif content in ("cut", "other"):
        np.savez_compressed(buffer, v_template=np.arange(9000.0), f=np.zeros(3))
    data = {"empty": b"", "text": b"hello"}.get(content, buffer.getvalue())
    path.write_bytes(data[: len(data) // 2] if content == "cut" else data)
    return path


DAMAGE = ("empty", "text", "array", "cut", "other")


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_embedding_is_bad_input(head, tmp_path, content):
    with pytest.raises(BadInput, match="not a landmark embedding"):
        _with_embedding(head, _damaged(content, tmp_path / EMBEDDING))


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_npz_is_bad_input(tmp_path, content):
    with pytest.raises(BadInput, match="not a FLAME file"):
        read_arrays(_damaged(content, tmp_path / "model.npz"))


def test_the_command_converts_and_names_the_head(flame_file, converted):
    result = CliRunner().invoke(app, ["assets", "--flame", str(flame_file), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["flame"] == converted
    assert f"--head {converted['head']}" in result.stderr


def test_the_command_refuses_a_malicious_file(cache, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(f"cos\nsystem\n(S'touch {tmp_path / 'ran'}'\ntR.".encode())
    result = CliRunner().invoke(app, ["assets", "--flame", str(path)])
    assert result.exit_code == BadInput.exit_code
    assert "os.system" in result.stderr
    assert not (tmp_path / "ran").exists()
    assert os.listdir(tmp_path) == ["generic_model.pkl"]


def test_a_video_is_prepared_with_it_and_lives_without_the_file(
    demo_video, flame_file, converted, require_assets, tmp_path
):
    from talkgs_cli.avatar import speaker_head
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.stages.prepare import prepare

    require_assets("selfie_segmenter", "whisper_tiny_en")
    mine = tmp_path / "mine.pkl"
    mine.write_bytes(flame_file.read_bytes())
    out = tmp_path / "speaker"
    config = PrepareConfig(head=f"flame:{mine}", consent="stated")
    answer = prepare(demo_video.path, out, config, SilentProgress())
    assert answer["head"] == "flame"
    assert answer["landmark_error_iod"]["mean"] < 0.03
    assert answer["landmark_error_iod"]["lips"] < 0.03
    mine.unlink()
    tracking = SpeakerFolder.open_(out).load_tracking()
    assert tracking.head == converted["head"]
    points = speaker_head(tracking).landmarks(
        tracking.motion.expression[:2], tracking.motion.jaw[:2], tracking.motion.corrective[:2]
    )
    assert torch.isfinite(points).all()
    again = PrepareConfig(head=f"flame:{flame_file}", consent="stated")
    assert prepare(demo_video.path, out, again, SilentProgress())["already_done"]
