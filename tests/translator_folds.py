"""What the voice-to-mouth model is worth: blocked folds, little and much material, other voices.

    python tests/translator_folds.py SPEAKER... --folds 5 --json folds.json

prints the tables of docs/translator.md for prepared speaker folders. p, b, m and open vowels are
counted where the `hama` package is installed to hear them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.avatar import speaker_head
from talkgs_cli.config import TranslatorConfig
from talkgs_cli.media.audio import SAMPLE_RATE_HZ, read_audio
from talkgs_cli.metrics.lips import closed_threshold, silent_frames
from talkgs_cli.networks.audio_encoder import load_encoder
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.networks.timing import frame_times_s, sample_at
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_translator import CORNERS, OPENING, lip_basis
from talkgs_cli.stages.speak_eyes import widened
from talkgs_cli.training import translator as training
from talkgs_cli.training.translator import train_translator
from talkgs_cli.training.translator_data import opening_direction, silence_features
from talkgs_cli.training.translator_parts import Mix
from talkgs_cli.training.translator_rehearsal import Found
from talkgs_cli.types import pack_mouth

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

GAP_S = 0.5
LABIAL = ("p", "b", "m")
OPEN_VOWELS = ("a", "æ", "ɑ", "ɐ", "ɔ", "aɪ", "aʊ", "ʌ")
NEAR_S = 0.08  # lips close within this of where a p, b or m is heard
OTHER_LAGS_S = (-0.08, -0.04, 0.0, 0.04, 0.08)


@dataclass
class Voice:
    """A prepared speaker, as the translator sees it."""

    name: str
    features: Array
    mouth: Array
    basis: Array
    valid: Mask
    rate: Fraction
    silence: list[Array]
    samples: Array
    phones: list[tuple[str, float]]
    iod_m: float
    iod_px_512: float

    @property
    def opening(self) -> Array:
        """[T] metres."""
        return np.asarray(self.mouth @ opening_direction(self.basis, OPENING))

    def frames_near(self, names: Sequence[str], within: Mask) -> list[slice]:
        """Frames about each phone of these names, where all of them lie within."""
        found = []
        for name, at_s in self.phones:
            middle, reach = round(at_s * self.rate - Fraction(1, 2)), round(NEAR_S * self.rate)
            part = slice(max(0, middle - reach), middle + reach + 1)
            if name in names and part.stop <= len(within) and within[part].all():
                found.append(part)
        return found


def load_voice(folder: Path) -> Voice:
    """Read a prepared speaker."""
    speaker = SpeakerFolder.open_(folder)
    tracking = speaker.load_tracking()
    head = speaker_head(tracking)
    samples = read_audio(speaker.audio)
    stored = speaker.load_audio_features()
    encoder = load_encoder(stored.encoder)
    points = head.landmarks(
        tracking.motion.expression, tracking.motion.jaw, tracking.motion.corrective
    )
    row = {int(index): k for k, index in enumerate(head.head.landmark_index)}
    eyes_m = torch.linalg.norm(points[:, row[33]] - points[:, row[263]], dim=1).mean()
    seen = tracking.landmarks[tracking.valid][:, [33, 263], :2]
    eyes_px = torch.linalg.norm(torch.as_tensor(seen[:, 0] - seen[:, 1]), dim=1).mean()
    return Voice(
        name=folder.name,
        features=np.asarray(stored.values[:]),
        mouth=pack_mouth(
            tracking.motion, head.head.mouth_expression, tracking.mouth_correctives
        ).numpy(),
        basis=lip_basis(
            head, tracking.motion.at(tracking.valid), tracking.mouth_correctives
        ).numpy(),
        valid=tracking.valid.numpy(),
        rate=speaker.frame_rate,
        silence=silence_features(encoder, samples),
        samples=samples,
        phones=heard_phones(samples),
        iod_m=float(eyes_m),
        iod_px_512=float(eyes_px) / min(speaker.size) * 512,
    )


def heard_phones(samples: Array) -> list[tuple[str, float]]:
    """Phones and the seconds at which an independent recogniser hears them."""
    try:
        import hama
    except ImportError:
        return []
    model = hama.ASRModel()
    found = []
    piece = 20 * SAMPLE_RATE_HZ  # its input is cut at 30 s
    for start in range(0, len(samples), piece):
        part = samples[start : start + piece]
        if len(part) < SAMPLE_RATE_HZ // 2:
            continue
        feeds = {
            model._waveform_input_name: part[None],
            model._waveform_lengths_input_name: np.array([len(part)], np.int64),
        }
        (scores,) = model.session.run([model._log_probs_output_name], feeds)
        best = np.asarray(scores[0]).argmax(1)
        previous = -1
        for frame, token in enumerate(best):
            if token not in (previous, model.blank_id):
                name = model.decoder_tokens[token]
                found.append((name, start / SAMPLE_RATE_HZ + (frame + 0.5) / 50))
            previous = token
    return found


def folds(voice: Voice, count: int) -> Iterator[tuple[Mask, Mask]]:
    """Blocks of an eleventh of the clip, the last among them: (judged, learnt from)."""
    edges = np.linspace(0, len(voice.mouth), 12).astype(int)
    gap = round(GAP_S * voice.rate)
    for block in np.unique(np.linspace(0, 10, count).round().astype(int)):
        judged = np.zeros(len(voice.mouth), bool)
        near = judged.copy()
        judged[edges[block] : edges[block + 1]] = True
        near[max(0, edges[block] - gap) : edges[block + 1] + gap] = True
        yield judged & voice.valid, voice.valid & ~near


def measure(voice: Voice, guess: Array, judged: Mask, learnt: Mask) -> dict[str, float]:
    """Every figure of the table, of [T, M] predicted mouths."""
    direction = opening_direction(voice.basis, OPENING)
    made, real = (guess @ direction)[judged], voice.opening[judged]
    threshold = closed_threshold(voice.opening[learnt])
    closed, really = made < threshold, real < threshold
    offset = np.einsum("tm,mpc->tpc", (guess - voice.mouth)[judged], voice.basis)[..., :2]
    offset -= offset.mean(1, keepdims=True)
    error = float(np.linalg.norm(offset, axis=-1).mean()) / voice.iod_m
    everywhere = guess @ direction
    lips = voice.frames_near(LABIAL, judged)
    vowels = voice.frames_near(OPEN_VOWELS, judged)
    silent = judged & silent_frames(voice.samples, SAMPLE_RATE_HZ, len(judged), voice.rate)
    moving = made.std() > 1e-9
    middle = [(part.start + part.stop) // 2 for part in vowels]
    return {
        "r": float(np.corrcoef(made, real)[0, 1]) if moving else 0.0,
        "spread": float(made.std() / real.std()),
        "LMD px": error * voice.iod_px_512,
        "LMD %": 100 * error,
        "closed R": float((closed & really).sum() / max(1, really.sum())),
        "closed P": float((closed & really).sum() / max(1, closed.sum())),
        # One frame early or late is 0.04 s: a closure all the same.
        "closed P, 1 frame": float((closed & widened(really, 1)).sum() / max(1, closed.sum())),
        "p/b/m": _mean([float(everywhere[part].min() < threshold) for part in lips]),
        "p/b/m real": _mean([float(voice.opening[part].min() < threshold) for part in lips]),
        "vowels closed": _mean([float(everywhere[k] < threshold) for k in middle]),
        "silence": _motion(everywhere, silent) / max(_motion(voice.opening, judged), 1e-12),
        "jitter": _jitter(made) / max(_jitter(real), 1e-12),
        "over": float((made > np.quantile(voice.opening[learnt], 0.995)).mean()),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _motion(opening: Array, where: Mask) -> float:
    """Mean squared step between neighbouring frames."""
    both = where[1:] & where[:-1]
    return float(np.square(np.diff(opening))[both].mean()) if both.any() else float("nan")


def _jitter(opening: Array) -> float:
    return float(np.abs(np.diff(opening, 2)).mean())


def others(translator: MotionTranslator, voice: Voice, other: Voice) -> float:
    """r between this speaker's mouth driven by another's sound and the other's true mouth."""
    direction = translator.opening.numpy()
    codes = translator.codes(translator.project(torch.from_numpy(other.features))).detach().numpy()
    times_s = frame_times_s(len(other.mouth), other.rate) + translator.played_lag_s()
    best = []
    for lag_s in OTHER_LAGS_S:  # another clip's sound may be late
        mouth = translator.decode(torch.from_numpy(sample_at(codes, times_s + lag_s))).numpy()
        best.append(np.corrcoef((mouth @ direction)[other.valid], other.opening[other.valid])[0, 1])
    return float(max(best))


def learn(
    voice: Voice,
    learnt: Mask,
    base: BaseTranslator | None,
    config: TranslatorConfig,
    *,
    heard: bool = True,
    mix: Mix | None = None,
) -> MotionTranslator:
    """A translator of the frames in `learnt`; `mix` skips the choice."""
    rehearse = training.rehearse
    if mix is not None:
        training.rehearse = lambda *_a, **_k: Found(mix, 1.0, 1.0, {})
    try:
        return train_translator(
            voice.features if heard else None,
            voice.mouth,
            voice.basis,
            OPENING,
            learnt,
            voice.rate,
            config,
            SilentProgress(),
            silence=voice.silence,
            base=base,
            corner_pair=CORNERS,
        )
    finally:
        training.rehearse = rehearse


def first_seconds(learnt: Mask, seconds: float, rate: Fraction) -> Mask:
    """The first frames of a mask."""
    kept = np.zeros_like(learnt)
    kept[np.flatnonzero(learnt)[: round(seconds * rate)]] = True
    return kept


def rows(base: BaseTranslator | None, config: TranslatorConfig) -> dict[str, Callable[..., object]]:
    """Name of each row, and what learns it: a function of voice and mask."""
    alone = replace(config, networks=0)
    table: dict[str, Callable[..., object]] = {
        "mean mouth": lambda voice, learnt: None,
        "ridge": lambda voice, learnt: learn(voice, learnt, None, alone, mix=Mix(1.0, 0.0, 1.0)),
    }

    def part(seconds: float | None, start: BaseTranslator | None) -> Callable[..., object]:
        def make(voice: Voice, learnt: Mask) -> MotionTranslator:
            if seconds is not None:
                learnt = first_seconds(learnt, seconds, voice.rate)
            return learn(voice, learnt, start, config)

        return make

    for label, seconds in (("5 s", 5.0), ("15 s", 15.0), ("all", None)):
        table[f"speaker only, {label}"] = part(seconds, None)
    if base is not None:
        table["base, not heard"] = lambda voice, learnt: learn(
            voice, learnt, base, config, heard=False
        )
        for label, seconds in (("5 s", 5.0), ("15 s", 15.0), ("all", None)):
            table[f"base, {label}"] = part(seconds, base)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("speakers", nargs="+", type=Path)
    parser.add_argument("--base", type=Path, default=Path("models/motion-translator"))
    parser.add_argument("--others", nargs="*", type=Path, default=[])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--rows", nargs="*")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    config = TranslatorConfig()
    table = rows(BaseTranslator.load(chosen.base) if chosen.base.is_dir() else None, config)
    voices = [load_voice(folder) for folder in chosen.speakers]
    strangers = voices + [load_voice(folder) for folder in chosen.others]
    results: list[dict[str, object]] = []
    for voice in voices:
        for name, make in table.items():
            if chosen.rows and name not in chosen.rows:
                continue
            found: list[dict[str, float]] = []
            foreign: dict[str, list[float]] = {}
            started = time.monotonic()
            for judged, learnt in folds(voice, chosen.folds):
                translator = make(voice, learnt)
                guess = np.tile(voice.mouth[learnt].mean(0), (len(voice.mouth), 1))
                if isinstance(translator, MotionTranslator):
                    guess = translator.predict(
                        voice.features, len(voice.mouth), voice.rate, clip_timing=True
                    ).numpy()
                    for other in strangers:
                        if other is not voice:
                            r = others(translator, voice, other)
                            foreign.setdefault(other.name, []).append(r)
                found.append(measure(voice, guess, judged, learnt))
            mean = {key: float(np.nanmean([row[key] for row in found])) for key in found[0]}
            strange = {f"r of {key}": float(np.mean(value)) for key, value in foreign.items()}
            took = (time.monotonic() - started) / len(found)
            each = {"r of folds": [round(row["r"], 3) for row in found]}
            results.append({"voice": voice.name, "row": name, **mean, **strange, "s": took, **each})
            cells = " ".join(f"{k} {v:.3f}" for k, v in (mean | strange).items())
            print(f"{voice.name} | {name} | {cells} | {took:.0f} s", flush=True)
            if chosen.json:
                chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
