"""Reads back what a file says of its origin: container metadata and a C2PA manifest.

It asks nobody: manifests kept elsewhere, trust lists and revocations are not looked up.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from talkgs_cli.errors import BadInput
from talkgs_cli.media.credentials import can_sign, own_serial_number
from talkgs_cli.media.ffmpeg import (
    LOCAL_FILES_ONLY,
    ffmpeg_program,
    file_url,
    last_line,
    require_file,
)
from talkgs_cli.media.marking import SETTINGS, SOURCE_TYPES

C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
UNTRUSTED = "signingCredential.untrusted"
CHANGED = ("assertion.bmffHash.mismatch", "assertion.dataHash.mismatch")
SYNTHETIC_TYPES = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")


def container_metadata(path: Path) -> dict[str, str]:
    """Tags of the whole file, by their lower-case names.

    Raises:
        BadInput: no such file, or no media.
    """
    require_file(path, "video")
    said = subprocess.run(
        [
            *(ffmpeg_program(), "-loglevel", "error", "-protocol_whitelist", LOCAL_FILES_ONLY),
            *("-i", file_url(path), "-f", "ffmetadata", "-"),
        ],
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    if said.returncode != 0:
        raise BadInput(
            f"{path} is not a video or sound: {last_line(said.stderr.decode('utf-8', 'replace'))}.",
            hint="Give a video file such as .mp4, .mov or .webm.",
        )
    return parse_metadata(said.stdout.decode("utf-8", "replace"))


def parse_metadata(text: str) -> dict[str, str]:
    r"""The global tags of ffmpeg's metadata format.

    >>> parse_metadata(";FFMETADATA1\ntitle=a\\=b\\\nc\n[CHAPTER]\ntitle=no\n")
    {'title': 'a=b\nc'}
    """
    tags: dict[str, str] = {}
    joined: list[str] = []
    for line in text.splitlines():
        if joined and joined[-1].endswith("\\"):
            joined[-1] = joined[-1][:-1] + "\n" + line
        else:
            joined.append(line)
    for line in joined:
        if line.startswith("["):
            break
        if line.startswith((";", "#")) or "=" not in line:
            continue
        at = next(k for k, c in enumerate(line) if c == "=" and not line[:k].endswith("\\"))
        tags[_plain(line[:at]).lower()] = _plain(line[at + 1 :])
    return tags


def _plain(text: str) -> str:
    kept, escaped = [], False
    for letter in text:
        if letter == "\\" and not escaped:
            escaped = True
            continue
        kept.append(letter)
        escaped = False
    return "".join(kept)


def has_manifest_box(path: Path) -> bool:
    """Whether an mp4 or mov holds a C2PA manifest; it is not read."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        at = 0
        while at + 24 <= end:
            file.seek(at)
            head = file.read(32)
            length, kind, body = int.from_bytes(head[:4], "big"), head[4:8], head[8:24]
            if length == 1:  # a 64-bit length follows
                length, body = int.from_bytes(head[8:16], "big"), head[16:32]
            if kind == b"uuid" and body == C2PA_BOX:
                return True
            if length == 0 or length < 8:
                return False
            at += length
    return False


def read_manifest(path: Path) -> dict[str, Any]:
    """What the C2PA manifest says, and whether it holds.

    Returns:
        present; state: "valid", "trusted", "invalid", or null where it could not be checked;
        changed: whether the picture or sound is not what was signed; signer; self_made_here;
        claim_generator; digital_source_type; problems: codes of the specification.
    """
    found: dict[str, Any] = {
        "present": False,
        "state": None,
        "changed": None,
        "signer": None,
        "self_made_here": False,
        "claim_generator": None,
        "digital_source_type": None,
        "problems": [],
    }
    if not can_sign():
        present = has_manifest_box(path)
        return found | {"present": present, "problems": ["c2pa-python is missing"] * present}
    from c2pa import C2paError, Context, Reader

    try:
        with Reader(path, context=Context.from_dict(SETTINGS)) as reader:
            store = json.loads(reader.json())
            state = str(reader.get_validation_state() or "").lower() or None
    except C2paError.ManifestNotFound:
        return found
    except C2paError as error:
        present = has_manifest_box(path)
        if not present:
            return found  # a kind of file that holds none
        return found | {
            "present": True,
            "state": "invalid",
            "changed": True,
            "problems": [str(error).split("\n")[0]],
        }
    return found | _described(store, state)


def _described(store: dict[str, Any], state: str | None) -> dict[str, Any]:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    signature = active.get("signature_info") or {}
    generator: dict[str, Any] = next(iter(active.get("claim_generator_info") or []), {})
    results = (store.get("validation_results") or {}).get("activeManifest") or {}
    problems = [problem["code"] for problem in results.get("failure", [])]
    serial = str(signature.get("cert_serial_number") or "")
    return {
        "present": True,
        "state": state,
        "changed": any(code in CHANGED for code in problems) or state == "invalid",
        "signer": signature.get("issuer"),
        "self_made_here": serial != "" and serial == str(own_serial_number()),
        "claim_generator": " ".join(
            str(generator[key]) for key in ("name", "version") if key in generator
        )
        or None,
        "digital_source_type": _source_type(active),
        "problems": [code for code in problems if code != UNTRUSTED],
    }


def _source_type(manifest: dict[str, Any]) -> str | None:
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in assertion.get("data", {}).get("actions", []):
                if kind := action.get("digitalSourceType"):
                    return str(kind).removeprefix(SOURCE_TYPES)
    return None


def says_synthetic(metadata: dict[str, str], manifest: dict[str, Any]) -> bool:
    """Whether either of the two calls the file made by a model."""
    kinds = (
        metadata.get("digital_source_type", "").removeprefix(SOURCE_TYPES),
        manifest["digital_source_type"],
    )
    return any(kind in SYNTHETIC_TYPES for kind in kinds) or metadata.get("comment", "").startswith(
        "AI-generated"
    )
