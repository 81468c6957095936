"""`verify`: what a file says of its origin, whether that holds, and a verdict in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from talkgs_cli.media.credentials import INSTALL_HINT
from talkgs_cli.media.provenance import container_metadata, read_manifest, says_synthetic


def verify(file: Path) -> dict[str, Any]:
    """Read metadata and manifest back.

    Returns:
        The JSON contract of docs/design.md.

    Raises:
        BadInput: no such file.
    """
    metadata = container_metadata(file)
    manifest = read_manifest(file)
    synthetic = says_synthetic(metadata, manifest)
    intact = None if manifest["state"] is None else manifest["state"] != "invalid"
    answer = {
        "file": str(file),
        "synthetic": synthetic,
        "intact": intact,
        "metadata": metadata,
        "c2pa": manifest,
    }
    return {**answer, "said": _sentences(answer)}


def _sentences(answer: dict[str, Any]) -> list[str]:
    metadata, manifest = answer["metadata"], answer["c2pa"]
    if answer["synthetic"] and answer["intact"] is not False:
        first = "is marked as synthetic."
    elif answer["intact"] is False:
        first = "was changed after it was signed, or its manifest is damaged."
    else:
        first = "carries no mark of being synthetic; that proves nothing, marks can be removed."
    said = [f"{answer['file']} {first}"]
    comment = metadata.get("comment") or metadata.get("title")
    said.append(f"Metadata: {comment}" if comment else "Metadata: nothing about its origin.")
    if not manifest["present"]:
        said.append("C2PA manifest: none.")
    elif manifest["state"] is None:
        said.append(f"C2PA manifest: there is one; to check it: {INSTALL_HINT}")
    elif manifest["state"] == "invalid":
        problems = ", ".join(manifest["problems"]) or "unknown"
        said.append(f"C2PA manifest: does not hold ({problems}).")
    else:
        said.append(
            f"C2PA manifest: holds; signed by {manifest['signer']}"
            f"{', on this machine' if manifest['self_made_here'] else ''}; made with "
            f"{manifest['claim_generator'] or 'an unnamed program'}; "
            f"source: {manifest['digital_source_type'] or 'not said'}."
        )
        if manifest["state"] != "trusted":
            said.append("The signer is on no trust list here: anyone can make such a certificate.")
    return said
