"""`--translator` of fit and speak: exact weights are named, and encoders that differ refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_translator_processes import CONFIG, small_corpus
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.assets import translators
from talkgs_cli.assets.translators import seal
from talkgs_cli.config import SpeakConfig, TranslatorConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.media.audio import write_wav
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.translator_choice import (
    borrowed_translator,
    load_base,
    settled,
    settled_to_speak,
)
from talkgs_cli.training.base import train_base

WHISPER, LOG_MEL = "whisper-tiny.en", "log-mel"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base translator that reads the bare spectrogram."""
    folder = tmp_path_factory.mktemp("base") / "lips"
    train_base(small_corpus(), CONFIG, SilentProgress()).save(folder)
    seal(folder)
    return folder


def speaker_heard_with(folder: Path, encoder: str) -> SpeakerFolder:
    """As much of a speaker folder as the choice looks at."""
    folder.mkdir()
    speaker = SpeakerFolder.create(folder, {"has_audio": True})
    speaker.save_audio_features(np.zeros((5, 3), np.float32), encoder)
    return speaker


def bundle(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(translators, "releases_folder", lambda: folder)


def test_a_named_folder_is_recorded_with_its_hash(base_folder: Path, tmp_path: Path) -> None:
    speaker = speaker_heard_with(tmp_path / "s", LOG_MEL)
    config = settled(speaker, TranslatorConfig(translator=str(base_folder)), SilentProgress())
    assert config.translator == str(base_folder)
    assert len(bytes.fromhex(config.translator_sha256)) == 32
    assert config.encoder == LOG_MEL
    base = load_base(config)
    assert base is not None
    assert base.about.encoder == LOG_MEL


def test_another_encoder_than_the_clip_was_heard_with_is_refused(
    base_folder: Path, tmp_path: Path
) -> None:
    speaker = speaker_heard_with(tmp_path / "s", WHISPER)
    with pytest.raises(
        BadInput, match=r"reads log-mel features; .* with whisper-tiny\.en"
    ) as caught:
        settled(speaker, TranslatorConfig(translator=str(base_folder)), SilentProgress())
    assert "--encoder log-mel" in (caught.value.hint or "")


def test_auto_takes_the_release_where_the_encoder_fits_and_says_where_not(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    progress = SilentProgress()
    progress.note = said.append  # type: ignore[method-assign]
    fitting = speaker_heard_with(tmp_path / "fitting", LOG_MEL)
    other = speaker_heard_with(tmp_path / "other", WHISPER)

    bundle(monkeypatch, tmp_path / "nothing")
    assert settled(fitting, TranslatorConfig(), progress).translator == "none"
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "motion-translator").symlink_to(base_folder)
    bundle(monkeypatch, tmp_path / "bundle")
    assert settled(fitting, TranslatorConfig(), progress).translator == "motion-translator"
    assert said == []
    assert settled(other, TranslatorConfig(), progress).translator == "none"
    assert "whisper-tiny.en" in said[0]
    none = settled(fitting, TranslatorConfig(translator="none"), progress)
    assert (none.translator, none.translator_sha256) == ("none", "")
    assert load_base(none) is None


def test_weights_that_change_meanwhile_are_noticed(base_folder: Path) -> None:
    config = settled_to_speak(SpeakConfig(translator=str(base_folder)), SilentProgress())
    with pytest.raises(BadInput, match="has changed"):
        load_base(replace(config, translator_sha256="0" * 64))


def test_an_unknown_translator_is_a_usage_error(tmp_path: Path) -> None:
    speaker = speaker_heard_with(tmp_path / "s", LOG_MEL)
    with pytest.raises(UsageError, match="no translator 'nonesuch'"):
        settled(speaker, TranslatorConfig(translator="nonesuch"), SilentProgress())


def test_fit_refuses_the_wrong_encoder_before_it_writes(
    base_folder: Path, prepared_speaker: Path, speaker_copy
) -> None:
    folder = speaker_copy(prepared_speaker)
    result = CliRunner().invoke(app, ["fit", str(folder), "--translator", str(base_folder)])
    assert result.exit_code == 3, result.output
    assert "reads log-mel features" in result.stderr
    assert not (folder / "fit" / "config.json").exists()


def test_a_borrowed_translator_moves_this_speakers_lips(
    base_folder: Path, prepared_speaker: Path
) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    base = load_base(settled_to_speak(SpeakConfig(translator=str(base_folder)), SilentProgress()))
    assert base is not None
    translator = borrowed_translator(speaker, base)
    features = small_corpus().recordings[0].features
    mouth = translator.predict(features, 100, speaker.frame_rate)
    assert np.isfinite(mouth.numpy()).all()
    opening = mouth @ translator.opening
    assert float(opening.max() - opening.min()) > 5e-4  # half a millimetre
    low, high = translator.opening_range.tolist()
    assert low - 1e-4 <= float(opening.min())
    assert float(opening.max()) <= high + 1e-4


def test_speak_says_whose_mouth_it_was(
    base_folder: Path, fitted_speaker: Path, speaker_copy, tmp_path: Path
) -> None:
    folder = speaker_copy(fitted_speaker)
    sound = tmp_path / "hello.wav"
    time_s = np.arange(16_000) / 16_000
    write_wav(sound, 0.3 * np.sin(2 * np.pi * 140 * time_s) * (np.sin(20 * time_s) > 0))
    command = ["speak", str(folder), "--audio", str(sound), "--translator", str(base_folder)]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["translator"]["base"] == str(base_folder)
    record = json.loads((folder / "renders" / "hello" / "render.json").read_text(encoding="utf-8"))
    assert record["request"]["config"]["translator_sha256"] == answer["translator"]["sha256"]
    again = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert again["already_done"] is True
