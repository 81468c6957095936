"""Score: what the figures must be when we know the truth, and what it refuses."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from score_videos import RATE, SIZE, face_frames, mean, write_video

from talkgs_cli.assets import fetch_file
from talkgs_cli.avatar import Avatar
from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import score as stage
from talkgs_cli.stages import score_rows
from talkgs_cli.stages.score_lips import BEHAVIOUR, Glance, behaviour
from talkgs_cli.stages.score_meter import METRICS
from talkgs_cli.stages.score_regions import REGIONS, Regions, choose_runs
from talkgs_cli.tracking.landmarks import FaceLandmarker
from talkgs_cli.types import LABELS, Crop, HeadMotion, Tracking

FRAMES = 33  # 3 held out
FEW = ScoreConfig(max_frames=5, run_frames=3)
CROP = Crop(left=24, top=0, side=192, size=192)


@pytest.fixture(scope="module", autouse=True)
def weights(require_assets):
    require_assets("lpips_alex", "lpips_vgg", "face_landmarker")


# -- any two videos --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("score") / "real.mp4", face_frames(5))


def compare(generated, reference):
    return stage.score_videos(generated, reference, FEW, SilentProgress()).answer


def test_video_against_itself_is_perfect(real):
    answer = compare(real, real)
    assert answer["frames"] == 5
    assert set(answer["behaviour"]) == set(BEHAVIOUR)
    for region in REGIONS:
        values = answer["rows"]["generated"][region]
        assert set(values) == set(METRICS)
        assert mean(values["psnr"]) == 100
        assert mean(values["ssim"]) == 1
        for metric in ("lpips_alex", "lpips_vgg", "lmd_px", "lmd_iod"):
            assert values[metric] is None or mean(values[metric]) == pytest.approx(0, abs=1e-6)
        assert answer["ground_truth_share"]["generated"][region] == 1.0
    assert mean(answer["rows"]["generated"]["full"]["lmd_px"]) == 0
    assert answer["rows"]["real"]["full"]["psnr"] is None
    assert mean(answer["rows"]["real"]["full"]["lmd_px"]) > 0  # the detector's own noise


def test_shift_and_blur_are_worse_the_stronger_they_are(real, tmp_path):
    frames = list(read_frames(real))[:2]
    for name, worsen, amounts in (
        ("shift", lambda frame, by: np.roll(frame, by, axis=1), (1, 3)),
        ("blur", lambda frame, by: cv2.GaussianBlur(frame, (0, 0), by), (1.0, 3.0)),
    ):
        answers = [
            compare(write_video(tmp_path / f"{name}{k}.mp4", [worsen(f, by) for f in frames]), real)
            for k, by in enumerate(amounts)
        ]
        weak, strong = (answer["rows"]["generated"] for answer in answers)
        for region in REGIONS:
            assert 100 > mean(weak[region]["psnr"]) > mean(strong[region]["psnr"])
            assert 1 > mean(weak[region]["ssim"]) > mean(strong[region]["ssim"])
            if region != "mask":
                assert 0 < mean(weak[region]["lpips_alex"]) < mean(strong[region]["lpips_alex"])
        if name == "shift":  # LMD is centred: a shifted mouth is the same mouth
            assert mean(strong["full"]["lmd_iod"]) < 0.02


def test_one_frame_late_is_worse_than_in_time(real, tmp_path):
    frames = list(read_frames(real))
    late = compare(write_video(tmp_path / "late.mp4", [frames[0], *frames[:-1]]), real)
    assert mean(late["rows"]["generated"]["full"]["psnr"]) < 60


def test_other_size_rate_and_length_are_adapted_and_said(real, tmp_path):
    frames = [cv2.resize(f, (160, 160), interpolation=cv2.INTER_AREA) for f in read_frames(real)]
    twice = [frame for frame in frames[:3] for _ in range(2)]
    answer = compare(write_video(tmp_path / "small.mp4", twice, RATE * 2), real)
    assert answer["frames"] == 3
    notes = " ".join(answer["notes"])
    assert "160x160 to 224x224" in notes
    assert "from 50 to 25 fps" in notes
    assert "3 of 3 and 5 frames" in notes
    assert 20 < mean(answer["rows"]["generated"]["full"]["psnr"]) < 60


def test_other_proportions_are_refused_with_both_sizes(real, tmp_path):
    wide = write_video(tmp_path / "wide.mp4", [np.zeros((120, 240, 3), np.uint8)] * 3)
    with pytest.raises(BadInput, match=r"240x120.*224x224"):
        compare(wide, real)


def test_without_a_face_only_the_full_frame_is_measured(tmp_path):
    rng = np.random.default_rng(0)
    frames = [cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (96, 96)) for _ in range(3)]
    blank = write_video(tmp_path / "blank.mp4", frames)
    answer = compare(blank, blank)
    assert mean(answer["rows"]["generated"]["full"]["psnr"]) == 100
    assert answer["rows"]["generated"]["full"]["lmd_px"] is None
    assert set(answer["rows"]["generated"]["face"].values()) == {None}
    assert set(answer["behaviour"].values()) == {None}
    assert any("No face" in note for note in answer["notes"])


def test_a_file_that_is_no_video_is_refused(real, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    with pytest.raises(BadInput, match=r"text\.mp4"):
        compare(text, real)
    with pytest.raises(BadInput, match=r"none\.mp4"):
        compare(real, tmp_path / "none.mp4")


# -- a speaker -------------------------------------------------------------------------------------


class PaintingAvatar(Avatar):
    """Stands in for a fitted speaker: it paints the true crop, with a smudged mouth unless the jaw
    is the tracked one. The last corrective carries the frame's number.
    """

    def __init__(self, speaker, tracking, opaque=True):
        head = SimpleNamespace(head=SimpleNamespace(mouth_expression=torch.tensor([True, False])))
        super().__init__(head, None, None, tracking, speaker.crop)
        self.speaker, self.opaque = speaker, opaque

    def codes(self, motion):
        return motion.corrective[:, -1:].expand(-1, 16) / 100

    def render(self, motion):
        size = self.crop.size
        alpha = np.zeros((size, size), np.float32)
        cv2.ellipse(alpha, (size // 2, size // 2), (60, 75), 0, 0, 360, 1.0, -1)
        for t in range(len(motion)):
            index = int(motion.corrective[t, -1])
            picture = self.speaker.frame(index).astype(np.float32) / 255
            if not torch.equal(motion.jaw[t], self.tracking.motion.jaw[index]):
                x, y = CROP.to_crop(self.tracking.landmarks[index, 13, :2]).astype(int)
                picture[y - 10 : y + 20, x - 20 : x + 20] = 0.4
            shown = alpha * (1.0 if self.opaque else 0.0)
            yield picture * shown[..., None], shown


@pytest.fixture(scope="module")
def tracked_face():
    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    return np.stack([landmarker.track(frame).landmarks for frame in face_frames(FRAMES)])


@pytest.fixture
def speaker(tmp_path, tracked_face):
    folder = SpeakerFolder.create(
        tmp_path / "speaker",
        {
            "frame_rate": "25",
            "frames": FRAMES,
            "size": [SIZE, SIZE],
            "crop": {"left": CROP.left, "top": CROP.top, "side": CROP.side, "size": CROP.size},
            "has_audio": False,
        },
    )
    folder.frames.mkdir(parents=True)
    folder.labels.mkdir()
    write_video(folder.video, face_frames(FRAMES))
    for index, frame in enumerate(read_frames(folder.video)):
        cut = frame[CROP.top : CROP.top + CROP.side, CROP.left : CROP.left + CROP.side]
        cv2.imwrite(str(folder.frame_file(index)), cut[..., ::-1])
        # The painted face covers everything, so the compositor is told that all of it is bare.
        cv2.imwrite(str(folder.label_file(index)), np.full(cut.shape[:2], LABELS["skin"], np.uint8))
    jaw = torch.zeros(FRAMES, 3)
    jaw[:, 0] = torch.linspace(0.1, 0.2, FRAMES)
    motion = HeadMotion(
        expression=torch.zeros(FRAMES, 2),
        jaw=jaw,
        corrective=torch.arange(FRAMES, dtype=torch.float32)[:, None],
        world_to_camera=torch.eye(4).expand(FRAMES, 4, 4).clone(),
    )
    tracking = Tracking(
        landmarks=torch.from_numpy(tracked_face),
        blendshapes=torch.zeros(FRAMES, 52),
        valid=torch.ones(FRAMES, dtype=torch.bool),
        intrinsics=torch.eye(3),
        shape=torch.zeros(1),
        motion=motion,
        corrective_basis=torch.zeros(1, 4, 3),
        mouth_correctives=0,
        head="open",
    )
    folder.save_tracking(tracking)
    folder.save_splits()
    folder.fit.mkdir()
    folder.gaussians.touch()
    folder.finish_stage("fit", {"config": {}})
    return folder


@pytest.fixture
def painted(speaker, monkeypatch):
    avatar = PaintingAvatar(speaker, speaker.load_tracking())
    monkeypatch.setattr(stage.Avatar, "load", lambda _: avatar)
    return avatar


def test_speaker_score_keeps_the_contract_and_orders_the_rows(speaker, painted):
    answer = stage.score(speaker, FEW, SilentProgress())
    assert answer["protocol"] == stage.PROTOCOL
    assert answer["frames"] == 3
    assert set(answer["rows"]) == set(score_rows.ROWS) == set(answer["ground_truth_share"])
    for row in answer["rows"].values():
        assert set(row) == set(REGIONS)
        assert all(set(values) == set(METRICS) for values in row.values())
    rows, shares = answer["rows"], answer["ground_truth_share"]

    def mouth(row):
        return mean(rows[row]["mouth"]["psnr"])

    assert mouth("tracked") > 45 > mouth("frozen")  # the painted truth, up to the feathered edge
    assert mouth("tracked") > mouth("warped") > 20
    assert mean(rows["tracked"]["full"]["psnr"]) > mean(rows["composite"]["full"]["psnr"]) > 15
    assert shares["tracked"]["mouth"] < 0.1 < 0.5 < shares["tracked"]["full"] < 1
    assert set(shares["composite"].values()) == {0.0}
    assert set(shares["real"].values()) == {1.0}
    assert shares["warped"]["mask"] == 0
    assert set(answer["rows"]["audio"]["mask"].values()) == {None}  # no sound, no lip model
    assert answer["behaviour"] == dict.fromkeys(BEHAVIOUR)


def test_rerun_with_the_same_config_does_nothing_and_another_config_scores_again(speaker, painted):
    first = stage.score(speaker, FEW, SilentProgress())
    painted.render = None  # would fail if it were called
    again = stage.score(speaker, FEW, SilentProgress())
    assert again.pop("already_done") is True
    assert again == first
    with pytest.raises(TypeError):
        stage.score(speaker, ScoreConfig(max_frames=3, run_frames=3), SilentProgress())


def test_a_finished_score_names_the_place_where_the_folder_is_now(speaker, painted):
    stage.score(speaker, FEW, SilentProgress())
    moved = speaker.path.rename(speaker.path.with_name("moved"))
    again = stage.score(SpeakerFolder.open_(moved), FEW, SilentProgress())
    assert (again["already_done"], again["speaker"]) == (True, str(moved))
    assert again["report"].startswith(str(moved))


def test_a_record_that_is_no_record_does_not_stop_a_score(speaker):
    (speaker.renders / "a").mkdir(parents=True)
    (speaker.renders / "a" / "render.json").write_text("[]")
    assert stage.speed(speaker) is None


def test_audio_row_that_hears_the_true_mouth_equals_the_tracked_row(speaker, painted, monkeypatch):
    motion = painted.tracking.motion
    true_mouth = torch.cat([motion.expression[:, :1], motion.jaw], dim=1)
    monkeypatch.setattr(score_rows, "heard_mouth", lambda _: true_mouth)
    rows = stage.score(speaker, FEW, SilentProgress())["rows"]
    assert rows["audio"] == rows["tracked"]


def test_ground_truth_share_of_a_fully_pasted_frame_is_one(speaker, painted):
    painted.opaque = False
    answer = stage.score(speaker, FEW, SilentProgress())
    assert set(answer["ground_truth_share"]["tracked"].values()) == {1.0}
    assert mean(answer["rows"]["tracked"]["full"]["psnr"]) == 100  # and the share says why


def test_unfitted_speaker_is_refused_with_the_next_command(speaker):
    speaker.manifest["stages"].clear()
    with pytest.raises(BadInput, match="not been fitted") as caught:
        stage.score(speaker, FEW, SilentProgress())
    assert "talkgs fit" in caught.value.hint


def test_held_out_part_without_a_face_is_refused(speaker, painted):
    painted.tracking.valid[-3:] = False
    with pytest.raises(BadInput, match="3 held-out frames"):
        stage.score(speaker, FEW, SilentProgress())


# -- parts -----------------------------------------------------------------------------------------


def test_runs_are_spread_and_never_exceed_the_limit():
    runs = choose_runs([k for k in range(500) if k % 100], 100, 25)
    frames = [k for run in runs for k in run]
    assert len(frames) == len(set(frames)) == 100
    assert min(frames) == 1
    assert max(frames) == 499
    assert not any(k % 100 == 0 for k in frames)


def test_boxes_stay_inside_the_frame(tracked_face):
    regions = Regions.of(tracked_face, (SIZE, SIZE))
    outside = tracked_face[0] + np.array([-150, 150, 0])
    rows, columns = regions.face(outside)
    assert columns.start == 0
    assert rows.stop == SIZE
    mouth_rows, mouth_columns = regions.mouth(outside)
    assert 0 <= mouth_columns.start < mouth_columns.stop <= regions.face_side
    assert 0 <= mouth_rows.start < mouth_rows.stop <= regions.face_side


def test_mouth_box_holds_the_lips_and_the_oval_holds_the_mouth(tracked_face):
    regions = Regions.of(tracked_face, (SIZE, SIZE))
    face = regions.face(tracked_face[5])
    lips = tracked_face[5][[61, 291, 0, 17], :2] - [face[1].start, face[0].start]
    rows, columns = regions.mouth(tracked_face[5])
    assert (lips > [columns.start, rows.start]).all()
    assert (lips < [columns.stop, rows.stop]).all()
    assert all(regions.oval(tracked_face[5])[tuple(lips.T.astype(int)[::-1])])


def test_behaviour_of_the_real_lips_is_perfect_and_of_still_lips_is_not(tracked_face):
    moving = np.repeat(tracked_face[:1], 30, axis=0)
    moving[:, 14, 1] += 8 * np.abs(np.sin(np.arange(30) * 0.4))
    moving += np.random.default_rng(1).normal(0, 0.05, (30, 1, 3)).astype(np.float32)
    from talkgs_cli.metrics.lips import opening

    own = opening(moving)
    silent = np.zeros(30, bool)
    silent[:10] = True
    run = [range(100, 130)]
    real = [Glance.of(face) for face in moving]
    best = behaviour(real, real, run, own, silent)
    assert best["opening_r"] == best["opening_spread"] == best["jitter_ratio"] == 1
    assert best["closure_recall"] == best["closure_precision"] == 1
    still = behaviour([Glance.of(moving[2])] * 30, real, run, own, silent)
    assert still["opening_r"] == 0
    assert still["opening_spread"] < 1e-6
    assert still["silence_open_share"] == 1
    assert still["jitter_ratio"] == 0
    missing = [None if k < 25 else glance for k, glance in enumerate(real)]
    assert behaviour(missing, real, run, own, silent) == dict.fromkeys(BEHAVIOUR)


def test_senseless_settings_are_refused():
    with pytest.raises(UsageError):
        ScoreConfig(max_frames=-1)
    with pytest.raises(UsageError, match="mediapipe or fan"):
        ScoreConfig(lmd_detector="dlib")
