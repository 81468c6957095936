"""Claims about export: other programs read what we write, and it renders to the same picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.avatar import Avatar
from talkgs_cli.rendering import rasterize
from talkgs_cli.speaker import SpeakerFolder


def talkgs(*args: str):
    return CliRunner().invoke(app, list(args))


def read_ply(path: Path) -> dict[str, np.ndarray]:
    """A reader of our own making: header lines, then little-endian floats."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[2])
    table = np.frombuffer(body, "<f4").reshape(count, len(names))
    return {name: table[:, k] for k, name in enumerate(names)}


def stacked(found: dict[str, np.ndarray], *names: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([found[name] for name in names], axis=1).copy())


def test_a_viewer_that_knows_the_usual_names_draws_the_frame_that_was_exported(
    fitted_speaker: Path, tmp_path: Path
):
    out = tmp_path / "head.ply"
    result = talkgs("export", str(fitted_speaker), "--frame", "30", "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    found = read_ply(out)
    assert answer["gaussians"] == len(found["x"])
    # The usual order of attributes, 62 of them.
    rest = [f"f_rest_{k}" for k in range(45)]
    constant = ["f_dc_0", "f_dc_1", "f_dc_2"]
    names = ["x", "y", "z", "nx", "ny", "nz", *constant, *rest, "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(found) == names
    harmonics = stacked(found, *rest).view(-1, 3, 15).transpose(1, 2)
    colors = torch.cat([stacked(found, *constant)[:, None], harmonics], dim=1)
    avatar = Avatar.load(SpeakerFolder.open_(fitted_speaker))
    motion = avatar.tracking.motion.at(slice(30, 31))
    image, _, _ = rasterize(
        stacked(found, "x", "y", "z"),
        stacked(found, "rot_0", "rot_1", "rot_2", "rot_3"),
        stacked(found, "scale_0", "scale_1", "scale_2").exp(),
        torch.from_numpy(found["opacity"].copy()).sigmoid(),
        colors.contiguous(),
        motion.world_to_camera,
        avatar.intrinsics[None],
        avatar.crop.size,
        avatar.crop.size,
        sh_degree=3,
        backgrounds=torch.zeros(1, 3),
    )
    avatar.grain.strength = 0.0  # grain is of a video, not of the head
    ((rgb, _),) = avatar.render(motion)
    assert np.abs(image[0].numpy() - rgb).max() < 2e-3


def test_head_motion_is_plain_arrays(fitted_speaker: Path, tmp_path: Path):
    out = tmp_path / "motion.npz"
    assert (
        talkgs("export", str(fitted_speaker), "--format", "npz", "--out", str(out)).exit_code == 0
    )
    speaker = SpeakerFolder.open_(fitted_speaker)
    motion = speaker.load_tracking().motion
    with np.load(out, allow_pickle=False) as found:
        assert np.array_equal(found["expression"], motion.expression.numpy())
        assert np.array_equal(found["world_to_camera"], motion.world_to_camera.numpy())
        assert len(found["expression_names"]) == found["expression"].shape[1]
        assert found["time_s"][25] == pytest.approx(float(25 / speaker.frame_rate))


def test_an_export_repeats_itself_and_replaces_nothing_else(fitted_speaker: Path, tmp_path: Path):
    out = tmp_path / "head.ply"
    args = ("export", str(fitted_speaker), "--out", str(out))
    assert talkgs(*args).exit_code == 0
    written = out.stat().st_mtime_ns
    again = talkgs(*args)
    assert (again.exit_code, out.stat().st_mtime_ns) == (0, written)
    assert "Already done" in again.stderr
    other = talkgs(*args, "--frame", "40")
    assert other.exit_code == 2
    assert "--force" in other.stderr
    assert talkgs(*args, "--frame", "40", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "obj"), "no format 'obj'"),
        (("--frame", "100000"), "no frame 100000"),
        (("--format", "npz", "--frame", "3"), "--frame goes with --format ply"),
    ],
)
def test_what_cannot_be_exported_is_said(fitted_speaker: Path, options, said):
    result = talkgs("export", str(fitted_speaker), *options)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_or_a_file_in_the_way_is_told(
    fitted_speaker: Path, tmp_path: Path, force: tuple[str, ...]
):
    (tmp_path / "file.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "file.txt" / "head.ply"):
        result = talkgs("export", str(fitted_speaker), "--out", str(out), *force)
        assert result.exit_code == 2, result.output
        assert "Bug" not in result.stderr
    assert (tmp_path / "file.txt").read_text() == "mine"
