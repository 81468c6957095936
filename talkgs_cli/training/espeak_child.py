"""Run as a program: espeak-ng speaks a list of texts and says when each phone begins.

It reads `{"library", "requests": [{"voice", "text", "words_per_minute", "pitch"}]}` as JSON on
standard input; a process of its own because the library keeps state, and because it is only ever
used where someone has installed it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

PHONEME_EVENT = 7
RATE, PITCH = 1, 3
UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


def main() -> None:
    """Answer on standard output: per request a line of JSON, then that many bytes of sound."""
    ask = json.load(sys.stdin)
    library = ctypes.CDLL(ask["library"])
    sample_rate_hz = library.espeak_Initialize(2, 0, None, 1)  # synchronous, with phone events
    phones: list[tuple[str, int]] = []
    sound = bytearray()

    def heard(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            sound.extend(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type:
            if events[index].type == PHONEME_EVENT:
                name = events[index].id.string.decode("utf-8", "replace")
                phones.append((name, events[index].audio_position))
            index += 1
        return 0

    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    )
    callback = kind(heard)
    library.espeak_SetSynthCallback(callback)
    for request in ask["requests"]:
        phones.clear()
        sound.clear()
        library.espeak_SetVoiceByName(request["voice"].encode())
        library.espeak_SetParameter(RATE, int(request["words_per_minute"]), 0)
        library.espeak_SetParameter(PITCH, int(request["pitch"]), 0)
        text = request["text"].encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 0, 0, UTF8, None, None)
        library.espeak_Synchronize()
        head = {"sample_rate_hz": sample_rate_hz, "phones": phones, "bytes": len(sound)}
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + bytes(sound))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
