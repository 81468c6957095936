"""How far `prepare` is from what really moved, on three motions of the demo speaker.

    python tests/tracking_truth.py [MOTION ...]

prints the table of docs/heads.md: the open head and a FLAME-format file of another person's face,
with and without alignment to the pixels.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from flame_file import flame_arrays, write_flame

from talkgs_cli.config import DEMO_MOTIONS, DemoConfig, PrepareConfig
from talkgs_cli.demo.generator import make_demo_video
from talkgs_cli.demo.truth import truth_error
from talkgs_cli.heads import load_head
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.prepare import prepare

COLUMNS = {
    "jaw, r": ("jaw_correlation", 1.0),
    "jaw, degrees": ("jaw_degrees", 1.0),
    "pose, degrees": ("pose_degrees", 1.0),
    "expression, %": ("expression_iod", 100.0),
    "moved, %": ("expression_moved_iod", 100.0),
    "detector, %": ("landmark_iod", 100.0),
    "fitted head, %": ("fitted_landmark_iod", 100.0),
}


def main() -> None:
    """Make the videos, prepare them and print the table."""
    scratch = Path(tempfile.mkdtemp(prefix="talkgs-truth-"))
    progress = SilentProgress()
    face = load_head("open")
    identity = 0.5 * torch.randn(face.shape_count, generator=torch.Generator().manual_seed(0))
    flame = write_flame(scratch / "flame.pkl", flame_arrays(face, identity))
    print("| motion | head | pixels | " + " | ".join(COLUMNS) + " | jitter (tracker) |")
    print("|" + "---|" * (4 + len(COLUMNS)))
    for motion in sys.argv[1:] or DEMO_MOTIONS:
        video = scratch / f"{motion}.mp4"
        truth = make_demo_video(video, DemoConfig(duration_s=10.0, motion=motion), progress)
        for head in ("open", f"flame:{flame}"):
            for photometric in (False, True):
                out = scratch / f"{motion}-{head[:4]}-{photometric}"
                config = PrepareConfig(head=head, photometric=photometric)
                answer = prepare(video, out, config, progress)
                error = truth_error(truth, SpeakerFolder.open_(out).load_tracking())
                cells = [f"{error[key] * unit:.3g}" for key, unit in COLUMNS.values()]
                jitter = f"{answer['jitter_px']} ({answer['raw_jitter_px']})"
                name = head.partition(":")[0]
                cells = [motion, name, "yes" if photometric else "no", *cells, jitter]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
