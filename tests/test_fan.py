"""FAN's 68 points: where they are looked for, how heatmaps are read, whose weights are taken.

The real weights may not be passed on: a tiny network that finds coloured dots stands in for them.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
import torch

from talkgs_cli.errors import BadInput, MachineLacks
from talkgs_cli.landmark_points import OUTER_EYE_LEFT, OUTER_EYE_RIGHT
from talkgs_cli.metrics.landmarks import LIPS_68, LIPS_68_MIRRORED
from talkgs_cli.tracking import fan


class DotFinder(torch.nn.Module):
    """Points 36 and 45, the outer eye corners, at red and green dots; all others at blue ones."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        small = torch.nn.functional.avg_pool2d(x, 4)  # [B, 3, 64, 64]
        heat = small[:, 2:3].repeat(1, 68, 1, 1)
        # In a mirrored picture the eye on the left is the other one.
        left_half = (torch.arange(64) < 32).to(x.dtype)
        heat[:, 36] = (small[:, 0] + small[:, 1]) * left_half
        heat[:, 45] = (small[:, 0] + small[:, 1]) * (1 - left_half)
        return [torch.zeros_like(heat), heat]


def picture(dots, size=(300, 400)):
    frame = np.zeros((*size, 3), np.uint8)
    for (x, y), colour in dots:
        cv2.circle(frame, (round(x - 0.5), round(y - 0.5)), 6, colour, -1)
    return frame


def a_face(centre, width, rng):
    """[478, 2] points that fill the box of a face."""
    points = np.asarray(centre) + rng.uniform(-0.2, 0.2, (478, 2)) * width
    angles = np.linspace(0, 2 * np.pi, len(fan.OVAL), endpoint=False)
    around = np.stack([np.sin(angles), -np.cos(angles)], 1) * [width / 2, width * 0.65]
    points[list(fan.OVAL)] = np.asarray(centre) + around
    points[list(fan.BROWS)] = np.add(centre, (0, -0.35 * width))
    return points


@pytest.fixture
def rng():
    return np.random.default_rng(0)


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A file named as FAN's are, in torch's folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    raw = folder / "raw"
    torch.jit.script(DotFinder()).save(str(raw))
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    return raw.rename(folder / f"2DFAN4-{digest[:10]}.zip")


@pytest.mark.parametrize("width", [90, 160, 500])
def test_points_are_found_where_they_are_at_any_size(stand_in, rng, width):
    size, centre = (3 * width, 4 * width), np.array([2.1 * width, 1.4 * width])
    dots = {
        36: np.add(centre, (-0.25 * width, 0.0)),
        45: np.add(centre, (0.25 * width, 0.05 * width)),
    }
    blue = np.add(centre, (0.02 * width, 0.3 * width))
    frame = picture([(dots[36], (255, 0, 0)), (dots[45], (0, 255, 0)), (blue, (0, 0, 255))], size)
    found = fan.load_fan(stand_in).detect(frame, a_face(centre, width, rng))
    cell = 2.1 * width / 64  # the square is about twice the face's width
    assert found.shape == (68, 2)
    for index, place in dots.items():
        assert np.abs(found[index] - place).max() < 1.2 * cell
    assert np.abs(found[62] - blue).max() < 1.2 * cell


def test_the_square_is_the_one_it_was_trained_on(rng):
    face = a_face((200, 200), 100, rng)
    corner, side = fan._region(face)
    box_width, box_height = 100, 35 + 65  # ear to ear, brows to chin
    assert side == pytest.approx((box_width + box_height) * 200 / 195)
    middle = corner + side / 2
    assert middle == pytest.approx([200, (165 + 265) / 2 - 0.12 * box_height])


def test_mirroring_twice_changes_nothing_and_agrees_with_the_scores_own_table():
    table = np.array(fan.MIRRORED)
    assert (table[table] == np.arange(68)).all()
    assert (table[fan.LIPS] - 48 == LIPS_68_MIRRORED).all()
    assert len(LIPS_68) == 20
    assert table[36] == 45  # the outer eye corners
    assert (OUTER_EYE_RIGHT, OUTER_EYE_LEFT) == (33, 263)


def test_no_weights_no_second_opinion(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert fan.find_weights() is None
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth").touch()
    assert fan.find_weights() is None


def test_the_users_file_is_found(stand_in):
    assert fan.find_weights() == stand_in


def test_a_file_that_is_not_what_its_name_says_is_refused(stand_in):
    stand_in.write_bytes(stand_in.read_bytes() + b"x")
    with pytest.raises(BadInput, match="not what its name says"):
        fan.load_fan(stand_in)


def test_a_file_that_holds_no_network_is_refused(stand_in):
    other = stand_in.with_name(f"2DFAN4-{hashlib.sha256(b'no').hexdigest()[:10]}.zip")
    other.write_bytes(b"no")
    with pytest.raises(BadInput, match="can't be read"):
        fan.load_fan(other)


def test_a_state_without_the_package_says_what_to_install(stand_in, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "face_alignment", None)
    data = b"state"
    path = stand_in.with_name(f"2DFAN4-{hashlib.sha256(data).hexdigest()[:10]}.pth.tar")
    path.write_bytes(data)
    with pytest.raises(MachineLacks) as caught:
        fan.load_fan(path)
    assert "talkgs[fan]" in caught.value.hint


# -- prepare's second opinion ----------------------------------------------------------------------


def opinion(prepared_speaker, detect):
    from talkgs_cli.heads import load_head
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.stages.prepare_second_opinion import compare

    speaker = SpeakerFolder.open_(prepared_speaker)
    return compare(speaker, load_head("open"), speaker.load_tracking(), detect, lambda n: None)


def as_68(face, shift_iod=0.0):
    """The 68 points of [478, 2] as far as the second opinion looks at them."""
    points = np.zeros((68, 2))
    points[fan.LIPS], points[8] = face[list(LIPS_68)], face[152]
    eyes = np.linalg.norm(face[OUTER_EYE_LEFT] - face[OUTER_EYE_RIGHT])
    return np.add(points, (shift_iod * eyes, 0))


def test_a_second_tracker_that_agrees_is_near_and_one_that_does_not_is_as_far(prepared_speaker):
    alike = opinion(prepared_speaker, lambda frame, face: as_68(face))
    assert alike["frames"] == 24
    assert max(alike["lips_iod"], alike["chin_iod"]) < 0.02
    assert alike["opening_r"] > 0.98
    off = opinion(prepared_speaker, lambda frame, face: as_68(face, shift_iod=0.2))
    assert off["lips_iod"] == pytest.approx(0.2, abs=0.02)
    assert off["opening_r"] == alike["opening_r"]


def test_the_weights_are_asked_and_wrong_ones_are_told(prepared_speaker, stand_in):
    from talkgs_cli.heads import load_head
    from talkgs_cli.runtime import SilentProgress
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.stages.prepare_second_opinion import second_opinion

    speaker, told = SpeakerFolder.open_(prepared_speaker), []
    progress = SilentProgress()
    progress.note = told.append
    asked = (speaker, load_head("open"), speaker.load_tracking(), progress)
    assert second_opinion(*asked)["frames"] == 24
    assert told == []
    stand_in.write_bytes(stand_in.read_bytes() + b"x")
    assert second_opinion(*asked) is None
    assert "not what its name says" in told[0]
