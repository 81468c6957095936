"""Synthetic voices with the times of their phones: flite, espeak-ng, and NanoTTS by alignment.

flite and espeak-ng are programs of the system, needed only to train a base translator.
"""

from __future__ import annotations

import ctypes.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import MachineLacks
from talkgs_cli.networks.audio_encoder import SAMPLE_RATE_HZ, AudioEncoder
from talkgs_cli.training.phone_names import from_espeak, from_flite
from talkgs_cli.training.visemes import PAUSE, Phone

INSTALL_HINT = "Install them, for example with: apt-get install flite espeak-ng"

_NANO_CHILD = """
import json, sys
from py_nanotts import NanoTTS
speaker = NanoTTS()
for ask in json.load(sys.stdin):
    pcm = speaker.speak(ask["text"], voice=ask["voice"], speed=ask["speed"], pitch=ask["pitch"],
                        volume=0.5)
    sys.stdout.buffer.write(len(pcm).to_bytes(4, "little") + pcm)
"""


@dataclass
class Utterance:
    """One sentence.

    Attributes:
        samples: [n] 16 kHz mono.
        phones: In order, pauses included.
    """

    samples: NDArray[np.float32]
    phones: list[Phone]


@dataclass(frozen=True)
class Request:
    """What a voice is asked to say.

    Attributes:
        voice: The synthesiser's name of the voice.
        text: A sentence.
        speed: 1 is normal; 1.2 is quicker.
        pitch: 1 is normal; 1.2 is higher.
    """

    voice: str
    text: str
    speed: float = 1.0
    pitch: float = 1.0


def require_synthesisers() -> None:
    """Check that flite and espeak-ng are there.

    Raises:
        MachineLacks: one is missing.
    """
    lacking = []
    if shutil.which("flite") is None:
        lacking.append("flite")
    if ctypes.util.find_library("espeak-ng") is None:
        lacking.append("espeak-ng")
    if lacking:
        raise MachineLacks(
            f"Training on synthetic speech needs {' and '.join(lacking)}.", hint=INSTALL_HINT
        )


def flite(requests: Sequence[Request]) -> list[Utterance]:
    """Flite's voices (kal16, awb, rms, slt)."""
    from scipy.io import wavfile

    result = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        for request in requests:
            command = ["flite", "-voice", request.voice, "-t", request.text, "-psdur"]
            command += ["--setf", f"duration_stretch={1 / request.speed:.3f}"]
            command += ["--setf", f"f0_shift={request.pitch:.3f}", "-o", str(file)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rate, pcm = wavfile.read(file)
            phones, before = [], 0.0
            for item in said.split():
                name, _, end = item.rpartition(":")
                phones.append(Phone(from_flite(name), before, float(end)))
                before = float(end)
            result.append(Utterance(_to_16_khz(pcm / 32768, rate), phones))
    return result


def espeak(requests: Sequence[Request]) -> list[Utterance]:
    """espeak-ng's voices, such as en-us+f3, de, fr-fr."""
    asks = [
        {
            "voice": request.voice,
            "text": request.text,
            "words_per_minute": round(165 * request.speed),
            "pitch": round(min(max(50 + 60 * (request.pitch - 1), 5), 95)),
        }
        for request in requests
    ]
    ask = json.dumps({"library": ctypes.util.find_library("espeak-ng"), "requests": asks})
    out = _child(["-m", "talkgs_cli.training.espeak_child"], ask)
    result, at = [], 0
    while at < len(out):
        stop = out.index(b"\n", at)
        head = json.loads(out[at:stop])
        at = stop + 1 + head["bytes"]
        pcm = np.frombuffer(out[stop + 1 : at], "<i2") / 32768
        duration_s = len(pcm) / head["sample_rate_hz"]
        starts = [min(ms / 1000, duration_s) for _, ms in head["phones"]]
        phones = [
            Phone(from_espeak(name), start, end)
            for (name, _), start, end in zip(
                head["phones"], starts, [*starts[1:], duration_s], strict=True
            )
            if end > start
        ]
        if starts and starts[0] > 0:
            phones.insert(0, Phone(PAUSE, 0.0, starts[0]))
        result.append(Utterance(_to_16_khz(pcm, head["sample_rate_hz"]), phones))
    return result


def nanotts(
    requests: Sequence[Request], guides: Sequence[Utterance], encoder: AudioEncoder
) -> list[Utterance]:
    """NanoTTS' voices; their phones are found by aligning them with another voice's speech.

    Args:
        requests: What to say.
        guides: The same texts said by a voice whose phones are known.
        encoder: Its features carry what is said whoever says it.
    """
    asks = [
        {"voice": r.voice, "text": r.text, "speed": r.speed, "pitch": r.pitch} for r in requests
    ]
    out = _child(["-c", _NANO_CHILD], json.dumps(asks))
    result, at = [], 0
    for guide in guides:
        size = int.from_bytes(out[at : at + 4], "little")
        pcm = np.frombuffer(out[at + 4 : at + 4 + size], "<i2")
        at += 4 + size
        samples = (pcm / 32768).astype(np.float32)
        result.append(Utterance(samples, _carried_over(guide, samples, encoder)))
    return result


def _carried_over(
    guide: Utterance, samples: NDArray[np.float32], encoder: AudioEncoder
) -> list[Phone]:
    """The guide's phones at the times at which the other voice says them."""
    import librosa

    known, other = (_unit(encoder.encode(sound)) for sound in (guide.samples, samples))
    _, path = librosa.sequence.dtw(C=1 - known @ other.T)
    path = path[::-1]  # [P, 2] feature of the guide, feature of the other voice
    bounds_s = np.array([phone.start_s for phone in guide.phones] + [guide.phones[-1].end_s])
    places, first = np.unique(path[:, 0], return_index=True)
    last = np.append(first[1:], len(path)) - 1
    there = (path[first, 1] + path[last, 1]) / 2
    moved = np.interp(bounds_s * encoder.rate_hz, places, there) / encoder.rate_hz
    moved[-1] = len(samples) / SAMPLE_RATE_HZ
    return [
        Phone(phone.name, float(start), float(end))
        for phone, start, end in zip(guide.phones, moved, moved[1:], strict=False)
        if end > start
    ]


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    standard = (features - features.mean(0)) / (features.std(0) + 1e-3)
    return np.asarray(standard / np.linalg.norm(standard, axis=1, keepdims=True), np.float32)


def _child(arguments: list[str], ask: str) -> bytes:
    done = subprocess.run([sys.executable, *arguments], input=ask.encode(), capture_output=True)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise MachineLacks(f"A synthetic voice could not speak: {reason[-1]}", hint=INSTALL_HINT)
    return done.stdout


def _to_16_khz(samples: NDArray[np.floating], rate_hz: int) -> NDArray[np.float32]:
    if rate_hz == SAMPLE_RATE_HZ:
        return np.asarray(samples, np.float32)
    import librosa

    sound = np.asarray(samples, np.float32)
    resampled = librosa.resample(sound, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ)
    return np.asarray(resampled, np.float32)
