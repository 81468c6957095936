"""`SpeakerFolder`: every file name between the stages, and nothing about what is in them.

speaker/
  speaker.json             manifest, written last
  report.html              what prepare saw, for reading in a browser
  media/video.mp4          the original at a constant frame rate, near-lossless, with sound
  media/audio.wav          16 kHz mono
  media/frames/NNNNNN.png  face crop, RGB
  media/labels/NNNNNN.png  what each crop pixel shows (types.LABELS)
  media/audio_features.safetensors
  tracking.safetensors     types.Tracking
  splits.json              held-out = the last 1/11, one block
  fit/                     config.json, log.jsonl, checkpoints/, *.safetensors
  fit/report.html          what fit learnt, for reading in a browser; preview.png before that
  renders/NAME/            video.mp4, render.json
  scores/                  held-out.json, report.html, held-out-evidence.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli import __version__
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.runtime import atomic_path, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.frame_rows import Rows
    from talkgs_cli.types import Crop, Tracking

SCHEMA = 1
HELD_OUT = Fraction(1, 11)


@dataclass(frozen=True)
class AudioFeatures:
    """Speech features of a clip.

    Attributes:
        values: [T50, D] float32, 50 a second, on disk.
        encoder: Name of the encoder that made them.
    """

    values: Rows
    encoder: str


class SpeakerFolder:
    """One speaker on disk. Open it with `open_`; `prepare` makes it with `create`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.media = path / "media"
        self.video = self.media / "video.mp4"
        self.audio = self.media / "audio.wav"
        self.audio_features = self.media / "audio_features.safetensors"
        self.frames = self.media / "frames"
        self.labels = self.media / "labels"
        self.report = path / "report.html"
        self.tracking_file = path / "tracking.safetensors"
        self.splits_file = path / "splits.json"
        self.fit = path / "fit"
        self.fit_config = self.fit / "config.json"
        self.fit_log = self.fit / "log.jsonl"
        self.fit_preview = self.fit / "preview.png"
        self.fit_report = self.fit / "report.html"
        self.checkpoints = self.fit / "checkpoints"
        self.gaussians = self.fit / "gaussians.safetensors"
        self.translator = self.fit / "translator.safetensors"
        self.inpainting = self.fit / "inpainting.safetensors"
        self.renders = path / "renders"
        self.scores = path / "scores"

    # -- opening ---------------------------------------------------------------------------------

    @staticmethod
    def manifest_path(path: Path) -> Path:
        """Where the manifest of a speaker at `path` lies."""
        return path / "speaker.json"

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any]) -> SpeakerFolder:
        """A folder that `prepare` is filling; nothing is written until `save_manifest`."""
        return cls(path, {"schema": SCHEMA, "talkgs": __version__, "stages": {}, **manifest})

    @classmethod
    def open_(cls, path: Path) -> SpeakerFolder:
        """Open a prepared speaker.

        Raises:
            BadInput: no such folder, not a speaker, unreadable, or another schema.
        """
        file = cls.manifest_path(path)
        if not path.is_dir():
            raise BadInput(
                f"There is no speaker folder at {path}.",
                hint=f"Make it with: talkgs prepare VIDEO --out {path}",
            )
        if not file.is_file():
            raise BadInput(
                f"{path} is not a finished speaker folder: it has no speaker.json.",
                hint=f"Make it with: talkgs prepare VIDEO --out {path}",
            )
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{file} can't be read as a speaker manifest.",
                hint="Run talkgs prepare again with --force.",
            ) from error
        if schema != SCHEMA:
            raise BadInput(
                f"{path} has speaker schema {schema}; this talkgs reads schema {SCHEMA}.",
                hint="Prepare the video again with this version, or use the version that made it.",
            )
        return cls(path, manifest)

    @classmethod
    def find(cls, path: Path | None) -> SpeakerFolder:
        """Open `path`, or without one the speaker here: `speaker/` or the current folder."""
        if path is not None:
            return cls.open_(path)
        here = Path(".")
        if cls.manifest_path(here).is_file():
            return cls.open_(here)
        if cls.manifest_path(here / "speaker").is_file():
            return cls.open_(here / "speaker")
        raise UsageError(
            "There is no speaker here: neither ./speaker/speaker.json nor ./speaker.json.",
            hint="Name the folder, or make one with: talkgs prepare VIDEO",
        )

    # -- manifest --------------------------------------------------------------------------------

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, exact."""
        return Fraction(self.manifest["frame_rate"])

    @property
    def frame_count(self) -> int:
        """Frames of the prepared video."""
        return int(self.manifest["frames"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original frames."""
        height, width = self.manifest["size"]
        return int(height), int(width)

    @property
    def crop(self) -> Crop:
        """Where the crop frames lie in the original frame."""
        from talkgs_cli.types import Crop

        return Crop(**self.manifest["crop"])

    @property
    def has_audio(self) -> bool:
        """Whether the video came with sound."""
        return bool(self.manifest["has_audio"])

    def stage(self, name: str) -> dict[str, Any] | None:
        """The record of a finished stage, or None."""
        record: dict[str, Any] | None = self.manifest["stages"].get(name)
        return record

    def require_fit(self) -> None:
        """Raise `BadInput` unless `fit` has finished."""
        if self.stage("fit") is None or not self.gaussians.is_file():
            raise BadInput(
                f"{self.path} has not been fitted yet.", hint=f"Run: talkgs fit {self.path}"
            )

    def finish_stage(self, name: str, record: dict[str, Any]) -> None:
        """Note that a stage is done (its config and figures) and write the manifest."""
        self.manifest["stages"][name] = {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **record,
        }
        self.save_manifest()

    def save_manifest(self) -> None:
        """Write speaker.json; always the last file a stage writes."""
        write_json(self.manifest_path(self.path), self.manifest)

    # -- frames ----------------------------------------------------------------------------------

    def frame_file(self, index: int) -> Path:
        """Crop frame `index`."""
        return self.frames / f"{index:06d}.png"

    def label_file(self, index: int) -> Path:
        """Label image `index`."""
        return self.labels / f"{index:06d}.png"

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Crop frame `index`: [H, W, 3] RGB."""
        import cv2

        image = cv2.imread(str(self.frame_file(index)), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise BadInput(
                f"{self.frame_file(index)} is missing or damaged.",
                hint="Run talkgs prepare again with --force.",
            )
        return image  # type: ignore[return-value]

    def label(self, index: int) -> NDArray[np.uint8]:
        """Label image `index`: [H, W], values of types.LABELS."""
        import cv2

        image = cv2.imread(str(self.label_file(index)), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise BadInput(
                f"{self.label_file(index)} is missing or damaged.",
                hint="Run talkgs prepare again with --force.",
            )
        return image  # type: ignore[return-value]

    # -- tracking and splits ---------------------------------------------------------------------

    def save_tracking(self, tracking: Tracking, file: Path | None = None) -> None:
        """Write tracking.safetensors, or `file`; landmarks on disk are copied part by part."""
        from talkgs_cli.frame_rows import RowWriter, in_parts

        names = ("blendshapes", "intrinsics", "shape", "corrective_basis")
        fields = {name: getattr(tracking, name).numpy() for name in names}
        fields["valid"] = tracking.valid.byte().numpy()
        fields |= {name: value.numpy() for name, value in vars(tracking.motion).items()}
        about = {"head": tracking.head, "mouth_correctives": str(tracking.mouth_correctives)}
        landmarks = tracking.landmarks
        with (
            atomic_path(file or self.tracking_file) as partial,
            RowWriter(partial, "landmarks", landmarks.shape[1:]) as rows,
        ):
            for part in in_parts(len(landmarks)):
                rows.append(landmarks[part])
            rows.finish(fields, about)

    def load_tracking(self, path: Path | None = None) -> Tracking:
        """Read tracking.safetensors, or `path`; the landmarks stay on disk."""
        import torch
        from safetensors import safe_open

        from talkgs_cli.frame_rows import FrameRows
        from talkgs_cli.types import HeadMotion, Tracking

        # For torch the whole file would be mapped, and count as memory.
        path = path or self.tracking_file
        with safe_open(path, framework="np") as file:
            fields = {
                name: torch.from_numpy(file.get_tensor(name))
                for name in file.keys()  # noqa: SIM118
                if name != "landmarks"
            }
            meta = file.metadata()
        motion = HeadMotion(
            **{
                name: fields.pop(name)
                for name in ("expression", "jaw", "corrective", "world_to_camera")
            }
        )
        return Tracking(
            **{**fields, "valid": fields["valid"].bool()},
            landmarks=FrameRows.of(path, "landmarks"),
            motion=motion,
            mouth_correctives=int(meta["mouth_correctives"]),
            head=meta["head"],
        )

    def save_audio_features(self, features: Iterable[NDArray[np.float32]], encoder: str) -> None:
        """Write media/audio_features.safetensors.

        Args:
            features: [n, D] pieces (or [D] rows) of the whole clip's sound, 50 a second.
            encoder: Name of the encoder that made them.
        """
        from talkgs_cli.frame_rows import RowWriter

        pieces = iter(features)
        first = next(pieces)
        with (
            atomic_path(self.audio_features) as partial,
            RowWriter(partial, "features", first.shape[-1:]) as rows,
        ):
            rows.append(first)
            for piece in pieces:
                rows.append(piece)
            rows.finish({}, {"encoder": encoder})

    def load_audio_features(self) -> AudioFeatures:
        """Read media/audio_features.safetensors.

        Raises:
            BadInput: the speaker came without sound.
        """
        from safetensors import safe_open

        from talkgs_cli.frame_rows import FrameRows

        if not self.audio_features.is_file():
            raise BadInput(f"{self.path} has no sound.", hint="Prepare a video that has sound.")
        with safe_open(self.audio_features, framework="np") as file:
            encoder = file.metadata()["encoder"]
        return AudioFeatures(FrameRows.of(self.audio_features, "features"), encoder)

    def save_splits(self) -> None:
        """Hold out the last 1/11 of the frames as one block, as the field does."""
        first_held_out = self.frame_count - int(self.frame_count * HELD_OUT)
        write_json(
            self.splits_file,
            {"train": [0, first_held_out], "test": [first_held_out, self.frame_count]},
        )

    def splits(self) -> tuple[range, range]:
        """(train, test) frame ranges."""
        splits = json.loads(self.splits_file.read_text(encoding="utf-8"))
        return range(*splits["train"]), range(*splits["test"])


def crop_to_json(crop: Crop) -> dict[str, int]:
    """A crop as the manifest stores it."""
    return asdict(crop)
