"""Claims about where the lower teeth are put: where open mouths show them, and nowhere else."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkgs_cli.avatar import Avatar, speaker_head
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.rendering.mesh import rasterize_mesh
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.training.lower_teeth import find_lower_teeth
from talkgs_cli.types import REGIONS, Tracking, project

TEETH = [REGIONS.index(name) for name in ("upper_teeth", "lower_teeth")]


@pytest.fixture
def speaker(prepared_speaker: Path, speaker_copy) -> SpeakerFolder:
    return SpeakerFolder.open_(speaker_copy(prepared_speaker))


def paint(
    speaker: SpeakerFolder,
    tracking: Tracking,
    head: SpeakerHead,
    teeth: tuple[int, int, int] | None,
    tongue: tuple[int, int, int] = (40, 30, 120),
) -> list[int]:
    """Paint every frame red, and what the head shows as teeth and tongue (blue, green, red)."""
    crop = speaker.crop
    intrinsics = torch.from_numpy(crop.intrinsics(tracking.intrinsics.numpy())).float()
    regions = head.head.face_regions.numpy()
    frames = torch.nonzero(tracking.valid).flatten()[::3].tolist()
    for index in frames:
        motion = tracking.motion.at(slice(index, index + 1))
        vertices = head.vertices(motion.expression, motion.jaw, motion.corrective)
        pose = motion.world_to_camera
        depth = vertices[0] @ pose[0, 2, :3] + pose[0, 2, 3]
        points = torch.cat([project(vertices, pose, intrinsics)[0], depth[:, None]], dim=1)
        triangle, _ = rasterize_mesh(points.numpy(), head.head.faces.numpy(), (crop.size,) * 2)
        picture = np.full((crop.size, crop.size, 3), (40, 30, 120), np.uint8)  # blue, green, red
        picture[(triangle >= 0) & (regions[triangle] == REGIONS.index("tongue"))] = tongue
        if teeth:
            picture[(triangle >= 0) & np.isin(regions[triangle], TEETH)] = teeth
        cv2.imwrite(str(speaker.frame_file(index)), picture)
    return frames


@pytest.mark.parametrize("height_m", [0.002, -0.001])
def test_teeth_are_found_where_the_video_shows_them(speaker: SpeakerFolder, height_m: float):
    tracking = speaker.load_tracking()
    frames = paint(speaker, tracking, speaker_head(tracking, height_m), (190, 200, 220))
    found = find_lower_teeth(speaker, tracking, speaker_head(tracking), frames, Exposure())
    assert found == pytest.approx(height_m, abs=0.0006)


@pytest.mark.parametrize("tongue", [(40, 30, 120), (70, 70, 150), (90, 90, 190)])
def test_without_teeth_to_see_they_stay_where_the_model_has_them(
    speaker: SpeakerFolder, tongue: tuple[int, int, int]
):
    tracking = speaker.load_tracking()
    frames = paint(speaker, tracking, speaker_head(tracking), None, tongue)
    assert find_lower_teeth(speaker, tracking, speaker_head(tracking), frames, Exposure()) == 0


def test_mouths_that_never_open_say_nothing(speaker: SpeakerFolder):
    tracking = speaker.load_tracking()
    assert find_lower_teeth(speaker, tracking, speaker_head(tracking), [0], Exposure()) == 0


def test_raised_teeth_turn_with_the_jaw_and_nothing_else_moves(speaker: SpeakerFolder):
    tracking = speaker.load_tracking()
    motion = tracking.motion.at(slice(0, 2))
    jaw = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0]])
    plain, raised = (
        speaker_head(tracking, height).vertices(motion.expression, jaw, motion.corrective)
        for height in (0.0, 0.002)
    )
    head = speaker_head(tracking).head
    rows = torch.unique(head.faces[head.face_regions == REGIONS.index("lower_teeth")])
    moved = raised - plain
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.0, np.cos(0.3), np.sin(0.3)]]).float() * 0.002
    torch.testing.assert_close(
        moved[:, rows], expected[:, None].expand(-1, len(rows), -1), atol=1e-6, rtol=0
    )
    moved[:, rows] = 0
    assert not moved.any()


def test_a_fitted_speaker_remembers_where_its_teeth_are(fitted_speaker: Path, speaker_copy):
    fitted = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    avatar = Avatar.load(fitted)
    avatar.head = speaker_head(avatar.tracking, 0.0015)
    avatar.save(fitted.gaussians)
    assert Avatar.load(fitted).head.lower_teeth_m == pytest.approx(0.0015)
