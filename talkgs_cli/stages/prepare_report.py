"""The page that shows what `prepare` saw: the head over the face, curves over time, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli import __version__
from talkgs_cli.landmark_points import (
    IRISES,
    JAW_LINE,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    RIGHT_EYE,
)
from talkgs_cli.rendering.mesh import rasterize_mesh
from talkgs_cli.runtime import Progress, atomic_path
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import report_html as html
from talkgs_cli.stages.prepare_timeline import CLOSED_OPENING, TURNED_DEG, Timeline
from talkgs_cli.stages.report_curves import Curve, Marks, curves
from talkgs_cli.stages.spans import time_code
from talkgs_cli.types import REGIONS, HeadModel, Tracking, project

SHEET_FRAMES = 24
TILE_PX = 320  # longest side of a stored picture; larger crops are shrunk
MESH_PX = 512  # side at which the mesh is drawn
EDGE_PX = 0.6  # a pixel this close to an edge shows it
MESH_COLOR = (125, 255, 154, 150)
LAYERS = {"lips": "lips", "eyes": "eyes", "jaw": "jaw line", "overlay": "mesh"}
OUTLINES = (
    (LIPS_OUTER, "lips", True),
    (LIPS_INNER, "lips", True),
    (RIGHT_EYE, "eyes", True),
    (LEFT_EYE, "eyes", True),
    (JAW_LINE, "jaw", False),
)
IRIS_RIMS = (IRISES[1:5], IRISES[6:10])
MESH_REGIONS = ("skin", "lips")


def write_report(
    video_name: str,
    speaker: SpeakerFolder,
    head: HeadModel,
    tracking: Tracking,
    timeline: Timeline,
    result: dict[str, Any],
    progress: Progress,
) -> None:
    """Write report.html into the speaker folder.

    Args:
        video_name: File name of the user's video.
        speaker: Its crop frames are shown.
        head: The head model of the tracking.
        tracking: T frames.
        timeline: The curves.
        result: The JSON answer so far.
        progress: Told about every picture.
    """
    with progress.stage("Writing the report", SHEET_FRAMES) as advance:
        tiles = []
        for tile in sheet_tiles(speaker, head, tracking, timeline):
            tiles.append(tile)
            advance(1)
        text = html.page(
            f"What talkgs saw in {video_name}",
            _verdict(result),
            html.section(
                "The head on the face",
                html.paragraph(
                    "The lines should sit on lips, eyelids, irises and jaw in every picture. "
                    "Where they do not, the speaker will look wrong there too."
                ),
                html.contact_sheet(tiles, LAYERS, hidden=("overlay",)),
            ),
            html.section("Over time", *_figures(timeline)),
            html.section("In figures", html.facts(_facts(result, timeline, tracking))),
            html.paragraph(
                f"Made by talkgs {__version__} on this machine. The page holds pictures of a "
                "person: share it only as you would share the video."
            ),
        )
        with atomic_path(speaker.report) as partial:
            partial.write_text(text, encoding="utf-8")


# -- pictures --------------------------------------------------------------------------------------


def sheet_tiles(
    speaker: SpeakerFolder, head: HeadModel, tracking: Tracking, timeline: Timeline
) -> Iterator[html.Tile]:
    """Frames spread evenly over the video, one after another, with the fitted head over them."""
    settled = head.settle(tracking.shape)
    count = len(tracking)
    shown = np.unique(((np.arange(SHEET_FRAMES) + 0.5) * count / SHEET_FRAMES).astype(int))
    for index in shown.tolist():
        frame = speaker.frame(index)
        side = speaker.crop.size
        when = time_code(index / float(timeline.frame_rate))
        picture_size = min(side, TILE_PX)
        small = cv2.resize(frame, (picture_size, picture_size), interpolation=cv2.INTER_AREA)
        picture = html.jpeg_uri(np.asarray(small, np.uint8))
        if not timeline.valid[index]:
            yield html.Tile(picture, (side, side), f"{when}, no face")
            continue
        points = posed_vertices(settled, tracking, index, speaker)
        yield html.Tile(
            picture,
            (side, side),
            f"{when}, {_direction(timeline.angles_deg[index, 0])}",
            outlines(head, points),
            html.mask_uri(wireframe(settled, points, side), MESH_COLOR),
        )


def _direction(yaw_deg: float) -> str:
    if round(abs(yaw_deg)) == 0:
        return "looks straight"
    return f"turned {abs(yaw_deg):.0f}° to their {'left' if yaw_deg > 0 else 'right'}"


def posed_vertices(
    settled: HeadModel, tracking: Tracking, index: int, speaker: SpeakerFolder
) -> NDArray[np.float64]:
    """The fitted head in a crop frame: [V, 3] x, y crop pixels, depth in metres."""
    motion = tracking.motion.at(slice(index, index + 1))
    vertices = settled.vertices(torch.zeros(0), motion.expression, motion.jaw)
    moved = torch.einsum("bc,cvd->bvd", motion.corrective, tracking.corrective_basis)
    vertices = vertices + moved  # [1, V, 3]
    pixels = project(vertices, motion.world_to_camera, tracking.intrinsics)[0]
    rotation, shift = motion.world_to_camera[0, :3, :3], motion.world_to_camera[0, :3, 3]
    depth = (vertices[0] @ rotation.T + shift)[:, 2:]
    crop = speaker.crop.to_crop(pixels.double().numpy())
    return np.concatenate([crop, depth.double().numpy()], axis=1)


def outlines(head: HeadModel, points: NDArray[np.float64]) -> tuple[html.Line, ...]:
    """Lips, eyes and jaw line of a posed head, by its own landmarks.

    Args:
        head: The head model.
        points: [V, 3] as `posed_vertices` gives.
    """
    corners = points[head.landmark_vertices.numpy(), :2]  # [L, 3, 2]
    marks = (corners * head.landmark_weights.double().numpy()[..., None]).sum(1)
    place = {int(mark): at for at, mark in enumerate(head.landmark_index)}
    lines = []
    for marks_wanted, kind, closed in OUTLINES:
        there = [place[mark] for mark in marks_wanted if mark in place]
        if len(there) > 2:
            lines.append(html.Line(marks[there], kind, closed))
    for rim in IRIS_RIMS:
        if all(mark in place for mark in rim):
            lines.append(html.Line(_circle(marks[[place[mark] for mark in rim]]), "eyes", True))
    return tuple(lines)


def _circle(rim: NDArray[np.float64]) -> NDArray[np.float64]:
    """[16, 2] points of the circle through [4, 2] points, about."""
    centre = rim.mean(0)
    radius = np.linalg.norm(rim - centre, axis=1).mean()
    turns = np.arange(16) / 16 * 2 * np.pi
    return np.asarray(centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1))


def wireframe(settled: HeadModel, points: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """The edges of the face's triangles that can be seen: [MESH_PX, MESH_PX].

    Args:
        settled: Gives the faces.
        points: [V, 3] as `posed_vertices` gives, in a crop of `side` pixels.
        side: Pixels.
    """
    faces, regions = settled.faces.numpy(), settled.face_regions.numpy()
    drawn = points * [MESH_PX / side, MESH_PX / side, 1.0]
    triangle, barycentric = rasterize_mesh(drawn, faces, (MESH_PX, MESH_PX), backfaces=False)
    corners = drawn[faces, :2]  # [F, 3, 2]
    opposite = np.roll(corners, -1, axis=1) - np.roll(corners, 1, axis=1)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    doubled = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    heights = doubled[:, None] / np.maximum(np.linalg.norm(opposite, axis=-1), 1e-9)  # [F, 3] px
    wanted = np.isin(regions, [REGIONS.index(name) for name in MESH_REGIONS])
    seen = (triangle >= 0) & wanted[triangle]
    distance = (barycentric * heights[triangle]).min(-1)
    return np.asarray(seen & (distance < EDGE_PX), bool)


# -- words and curves ------------------------------------------------------------------------------


def _verdict(result: dict[str, Any]) -> str:
    verdict = result["verdict"]
    advice = result["advice"]
    said = html.bullets(advice) if advice else html.paragraph("Nothing to improve was found.")
    badge = f'<p>Verdict: <span class="verdict {verdict}">{verdict}</span></p>'
    return f"<section>{badge}{said}</section>"


def _figures(timeline: Timeline) -> list[str]:
    rate = float(timeline.frame_rate)
    marks = Marks(timeline.gaps, timeline.cuts_s)
    yaw, pitch, roll = timeline.angles_deg.T
    figures = [
        curves(
            "Head, degrees",
            f"Yaw to their left, pitch up, roll with their left side up. Amber: past "
            f"{TURNED_DEG:.0f} degrees. Grey, here and below: no face. Red line: a cut.",
            [Curve("yaw", yaw), Curve("pitch", pitch), Curve("roll", roll)],
            rate,
            marks,
            flagged=timeline.turned,
            limits=(-TURNED_DEG, TURNED_DEG),
            least_range=(-15, 15),
        ),
        curves(
            "Mouth opening, share of the eyes' distance",
            f"Under the broken line the lips count as closed ({timeline.closed_s:.1f} s). "
            "Amber: something covers the mouth.",
            [Curve("opening", timeline.opening)],
            rate,
            marks,
            flagged=timeline.hidden_mouth,
            limits=(CLOSED_OPENING,),
            least_range=(0, 0.1),
        ),
    ]
    if timeline.loudness_db is not None:
        figures.append(
            curves(
                "Loudness, dB below full scale",
                "It should rise where the mouth opens above.",
                [Curve("loudness", np.maximum(timeline.loudness_db, -70))],
                rate,
                marks,
                least_range=(-60, 0),
            )
        )
    return [
        *figures,
        curves(
            "Sharpness of the face",
            "Within this video only: dips are movement or focus. Amber: under half of the median.",
            [Curve("sharpness", timeline.sharpness)],
            rate,
            marks,
            flagged=timeline.blurred,
            limits=(0.5 * float(np.nanmedian(timeline.sharpness)),),
            least_range=(0, 1),
        ),
        curves(
            "Jitter, pixels",
            "Mean second difference of the landmarks. High values are fast movement, or an "
            "unsteady track where the head is still.",
            [
                Curve("tracker alone", timeline.raw_jitter_px),
                Curve("fitted head", timeline.jitter_px),
            ],
            rate,
            marks,
            least_range=(0, 1),
        ),
        curves(
            "Face seen",
            "1 where the face is seen, 0 where not. Amber: another face is in the picture.",
            [Curve("face seen", timeline.valid.astype(np.float64))],
            rate,
            marks,
            flagged=timeline.other_faces,
            least_range=(0, 1),
        ),
    ]


def _facts(result: dict[str, Any], timeline: Timeline, tracking: Tracking) -> list[tuple[str, str]]:
    error = result["landmark_error_iod"]
    offset_s, earlier_s = result["av_offset_s"], result["sound_moved_earlier_s"]
    if timeline.loudness_db is None:
        sync = "no sound"
    elif offset_s is None:
        sync = "nothing stands out"
    else:
        sync = f"{offset_s * 1000:+.0f} ms" + (", moved" if earlier_s else "")
    return [
        ("Length", f"{time_code(timeline.duration_s)} ({result['frames']} frames)"),
        ("Frames per second", f"{float(timeline.frame_rate):.6g} ({result['frame_rate']})"),
        ("Frames that are used", f"{result['valid_share']:.1%}"),
        ("Height of the face", f"{result['face_height_px']:.0f} px"),
        ("Lips together / apart", f"{timeline.closed_s:.1f} s / {timeline.open_s:.1f} s"),
        ("Sound after the mouth", sync),
        (
            "Head misses the landmarks by",
            f"{error['mean']:.2%} of the eyes' distance; 95 of 100 by less than "
            f"{error['p95']:.2%}; lips {error['lips']:.2%}; eyes {error['eyes']:.2%}",
        ),
        (
            "Jitter",
            f"{result['jitter_px']:.2f} px; tracker alone {result['raw_jitter_px']:.2f} px",
        ),
        ("Head model", tracking.head),
        ("Consent of the person", result["consent"]),
    ]
