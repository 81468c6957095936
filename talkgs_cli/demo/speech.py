"""The demo's voice: sentences with pauses, synthesised offline; it knows nothing of faces."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import MachineLacks

SAMPLE_RATE_HZ = 16000
VOLUME = 0.5  # at 1 the voice clips
LEAD_S, TAIL_S = 0.6, 0.35  # silence at the ends
PAUSE_S = 0.3  # shortest pause between sentences

SENTENCES = (
    "Good morning, and welcome aboard.",
    "My mouth opens wide for a bar, a car, and a farm.",
    "The baby bought a purple boat, but Papa moved the map.",
    "She sees three green leaves, and he feeds the sheep.",
    "You use two blue shoes to move through the school.",
    "Five very brave foxes found the warm coffee.",
    "Maybe Bob and Pam will jump over the puddle.",
    "Oh no, the old road is closed until tomorrow.",
    "What a lovely yellow umbrella, I thought, as the rain began.",
    "Please put the paper cup beside the big lamp.",
    "Every voice is a moving picture, if you know how to look.",
    "We were wondering why the weather was so wild.",
)

_CHILD = """
import json, sys
from py_nanotts import NanoTTS
ask = json.load(sys.stdin)
speaker = NanoTTS()
for text in ask["texts"]:
    pcm = speaker.speak(text, voice=ask["voice"], volume=ask["volume"])
    sys.stdout.buffer.write(len(pcm).to_bytes(4, "little") + pcm)
"""


def synthesize(texts: list[str], voice: str) -> list[NDArray[np.float32]]:
    """Say each text.

    The synthesiser keeps state from one call to the next, so the same words sound different later
    in a process; a process of its own makes the sound depend on the texts alone.

    Returns:
        Per text [samples] mono at 16 kHz in [-1, 1], trimmed of surrounding silence.

    Raises:
        MachineLacks: the synthesiser does not run here.
    """
    ask = json.dumps({"texts": texts, "voice": voice, "volume": VOLUME})
    done = subprocess.run([sys.executable, "-c", _CHILD], input=ask.encode(), capture_output=True)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise MachineLacks(
            f"The demo's voice could not speak: {reason[-1]}",
            hint="Reinstall it with: pip install --force-reinstall py-nanotts",
        )
    clips, at = [], 0
    while at < len(done.stdout):
        size = int.from_bytes(done.stdout[at : at + 4], "little")
        pcm = np.frombuffer(done.stdout[at + 4 : at + 4 + size], "<i2")
        clips.append(_trim((pcm / 32768).astype(np.float32)))
        at += 4 + size
    if len(clips) != len(texts) or any(len(clip) == 0 for clip in clips):
        raise MachineLacks(f"The demo's voice {voice!r} said nothing.")
    return clips


def monologue(duration_s: float, voice: str, seed: int) -> NDArray[np.float32]:
    """Sentences with pauses between them, exactly `duration_s` long.

    Starts and ends in silence. Sentences that do not fit are left out and the pauses grow, so that
    the last second (which is held out from training) is speech like the rest.

    Returns:
        [duration_s * 16000] samples.
    """
    rng = np.random.default_rng(seed)
    count = round(duration_s * SAMPLE_RATE_HZ)
    lead, tail, shortest = (round(s * SAMPLE_RATE_HZ) for s in (LEAD_S, TAIL_S, PAUSE_S))
    rounds = 1 + int(duration_s // 40)
    chosen: list[NDArray[np.float32]] = []
    free = count - lead - tail
    for clip in synthesize(list(SENTENCES) * rounds, voice):
        needed = len(clip) + (shortest if chosen else 0)
        if needed <= free:
            chosen.append(clip)
            free -= needed
    share = rng.uniform(0.5, 1.5, max(len(chosen) - 1, 1))
    pauses = shortest + np.floor(free * share / share.sum()).astype(int)
    sound = np.zeros(count, np.float32)
    at = lead
    for clip, pause in zip(chosen, [*pauses, 0], strict=False):
        sound[at : at + len(clip)] = clip
        at += len(clip) + pause
    return sound


def _trim(samples: NDArray[np.float32], threshold: float = 0.003) -> NDArray[np.float32]:
    loud = np.flatnonzero(np.abs(samples) > threshold)
    if len(loud) == 0:
        return samples[:0]
    margin = int(0.02 * SAMPLE_RATE_HZ)
    return samples[max(loud[0] - margin, 0) : loud[-1] + margin]
