"""The page and the tables of score: complete, self-contained, and true to the answer."""

import json
import re

import numpy as np
import pytest
from score_videos import face_frames, write_video
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.config import ScoreConfig
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages import score_compare
from talkgs_cli.stages.score_compare import answer_of, score_pairs
from talkgs_cli.stages.score_evidence import FULL_SCALE, Evidence, Witness, heat_map
from talkgs_cli.stages.score_table import comparison_table


@pytest.fixture(scope="module", autouse=True)
def weights(require_assets):
    require_assets("lpips_alex", "lpips_vgg", "face_landmarker")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Two systems against one reference: one with a grey mouth in one frame, one untouched."""
    folder = tmp_path_factory.mktemp("report")
    real = write_video(folder / "real.mp4", face_frames(4))
    frames = list(read_frames(real))
    frames[2][120:150, 90:130] = 128
    bad = write_video(folder / "bad <i>.mp4", frames)
    page = folder / "page.html"
    systems = score_pairs([bad, real], [real], ScoreConfig(max_frames=0), SilentProgress())
    return systems, answer_of(systems, page), page.read_text(encoding="utf-8")


def test_the_page_is_self_contained_and_runs_no_script(scored):
    _, answer, page = scored
    assert answer["report"].endswith("page.html")
    assert "<script" not in page
    assert "default-src 'none'" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_names_of_files_are_escaped_in_the_page(scored):
    _, _, page = scored
    assert "bad &lt;i&gt;.mp4" in page
    assert "<i>.mp4" not in page


def test_the_page_shows_every_system_its_figures_and_its_worst_frame(scored):
    systems, answer, page = scored
    for system in systems:
        assert page.count(system.name.replace("<", "&lt;").replace(">", "&gt;")) >= 2
    assert answer["protocol"] in page
    worst = systems[0].evidence.worst
    assert [moment.frame for moment in worst] == [2]
    assert f"{worst[0].psnr_db} dB" in page
    assert set(worst[0].pictures) == {"real", "generated", "error"}


def test_the_comparison_holds_the_answers_own_figures_and_marks_the_better(scored):
    systems, answer, _ = scored
    face = [system.answer["rows"]["generated"]["face"]["psnr"]["mean"] for system in systems]
    assert [line["face PSNR"] for line in answer["comparison"]] == face
    table = comparison_table([(system.name, system.answer) for system in systems])
    assert "<b>100</b>" in table
    json.dumps(answer)


def test_evidence_comes_back_from_disk_as_it_was(scored, tmp_path):
    systems, _, _ = scored
    evidence = systems[0].evidence
    evidence.save(tmp_path / "evidence.json")
    again = Evidence.load(tmp_path / "evidence.json")
    assert again.worst == evidence.worst
    assert again.openings == evidence.openings
    assert again.series["generated"]["full"]["psnr"][2] == pytest.approx(
        evidence.series["generated"]["full"]["psnr"][2]
    )


def test_series_hold_one_value_a_frame_that_average_to_the_figure(scored):
    systems, _, _ = scored
    values = systems[0].evidence.series["generated"]["mouth"]["psnr"]
    assert sorted(values) == [0, 1, 2, 3]
    assert values[2] < 40
    figure = systems[0].answer["rows"]["generated"]["mouth"]["psnr"]["mean"]
    assert np.mean(list(values.values())) == pytest.approx(figure, abs=1e-4)


def test_pictures_kept_do_not_grow_with_the_clip():
    rng = np.random.default_rng(0)
    witness = Witness("made", 25, None)
    frame = rng.integers(0, 255, (32, 32, 3), np.uint8)
    for t in range(500):
        witness.target(t, frame, None)
        witness.add("made", np.roll(frame, t % 7, axis=0))
        witness.finish_frame()
        assert len(witness._worst) <= 7
    worst = witness.evidence().worst
    assert len(worst) == 6
    assert all(moment.frame % 7 for moment in worst)
    assert len({int(moment.time_s / 0.5) for moment in worst}) == 6


def test_the_worst_frames_kept_are_the_worst_of_all():
    errors = np.random.default_rng(0).permutation(240)[:200]
    witness = Witness("made", 2, None)  # a stretch is one frame
    for t, error in enumerate(errors):
        witness.target(t, np.zeros((8, 8, 3), np.uint8), None)
        witness.add("made", np.full((8, 8, 3), error, np.uint8))
        witness.finish_frame()
    assert [moment.frame for moment in witness.evidence().worst] == sorted(np.argsort(errors)[-6:])


def test_heat_rises_with_the_error():
    levels = heat_map(np.array([[0.0, FULL_SCALE / 3, FULL_SCALE, 10 * FULL_SCALE]]))
    brightness = levels.astype(int).sum(-1)[0]
    assert brightness[0] < 16
    assert brightness[0] < brightness[1] < brightness[2] == brightness[3]


@pytest.mark.parametrize("report", ["folder", "file/page.html"])
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(
    report, tmp_path, monkeypatch
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(score_compare, "score_pairs", None)  # would fail if it were called
    videos = ["--generated", "a.mp4", "--reference", "b.mp4"]
    said = CliRunner().invoke(app, ["score", *videos, "--report", str(tmp_path / report)])
    assert said.exit_code == 2
    assert report.split("/")[0] in said.stderr
