"""Marks a video as synthetic: container metadata always, a signed C2PA manifest where possible.

Source: C2PA specification 2; IPTC digital source types.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from talkgs_cli import __version__
from talkgs_cli.errors import BadInput
from talkgs_cli.media.credentials import INSTALL_HINT, Credentials
from talkgs_cli.runtime import atomic_path

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""Names of a vocabulary: nothing is fetched from there."""

MADE_BY_A_MODEL = f"{SOURCE_TYPES}trainedAlgorithmicMedia"

SYNTHETIC = {
    "title": "Synthetic talking head",
    "comment": f"AI-generated video: face and lips synthesised by talkgs {__version__}.",
    "digital_source_type": MADE_BY_A_MODEL,
}
"""Container metadata of every video: it says that it is synthetic."""

SIGNED_SUFFIXES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}

SETTINGS = {
    # Neither signing nor reading may ask anyone anything.
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    # By default the whole file is held in memory, twice: hash by pieces, and spill to disk.
    "core": {"merkle_tree_chunk_size_in_kb": 1024, "backing_store_memory_threshold_in_mb": 8},
}
"""How the C2PA library works, for signing and for reading."""


def mark(video: Path, credentials: Credentials | None) -> dict[str, Any]:
    """Put a signed manifest into a finished video, which replaces it.

    The container's metadata are written by the encoder (`SYNTHETIC`).

    Args:
        video: A video file.
        credentials: What signs; None: metadata are the only mark.

    Returns:
        metadata: true; c2pa: how the manifest is signed, or null; why_not: the reason, or null.

    Raises:
        BadInput: the user's certificate is not one that C2PA accepts.
    """
    if credentials is None:
        return _marked(None, f"the package c2pa-python is missing: {INSTALL_HINT}")
    if video.suffix.lower() not in SIGNED_SUFFIXES:
        return _marked(None, f"C2PA has no place for a manifest in {video.suffix} files")
    from c2pa import Builder

    with (
        _signing(credentials) as (context, signer),
        atomic_path(video) as partial,
        Builder(manifest(video), context) as builder,
    ):
        builder.sign_file(video, partial, signer)
    return _marked("self-made certificate" if credentials.self_made else "your certificate", None)


def require_signing(video: Path, credentials: Credentials | None) -> None:
    """Sign a picture of a few pixels, before a video that takes an hour is made for nothing.

    Args:
        video: The video that is to be signed; it need not be there.
        credentials: What signs; this machine's own are not tried.

    Raises:
        BadInput: the user's certificate is not one that C2PA accepts.
    """
    if credentials is None or credentials.self_made or video.suffix.lower() not in SIGNED_SUFFIXES:
        return
    from c2pa import Builder
    from PIL import Image

    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")
    picture.seek(0)
    claims = manifest(video) | {"format": "image/png"}
    with _signing(credentials) as (context, signer), Builder(claims, context) as builder:
        builder.sign(signer, "image/png", picture, BytesIO())


@contextmanager
def _signing(credentials: Credentials) -> Iterator[tuple[Any, Any]]:
    """The library's context and signer; what it says against the user's certificate is told."""
    from c2pa import C2paError, C2paSignerInfo, Context, Signer

    try:
        info = C2paSignerInfo(
            credentials.algorithm.encode(), credentials.chain_pem, credentials.key_pem, None
        )
        with Signer.from_info(info) as signer:
            yield Context.from_dict(SETTINGS), signer
    except C2paError as error:
        if credentials.self_made:
            raise
        raise BadInput(
            f"The certificate can't sign a video: {error}.",
            hint="Use one made for signing C2PA or e-mail, with its chain, not a self-signed one.",
        ) from error


def manifest(video: Path) -> dict[str, Any]:
    """What the manifest claims: made by talkgs, by a trained model."""
    maker = {"name": "talkgs", "version": __version__}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": MADE_BY_A_MODEL,
        "softwareAgent": maker,
    }
    return {
        "claim_generator_info": [maker],
        "title": video.name,
        "format": SIGNED_SUFFIXES[video.suffix.lower()],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _marked(c2pa: str | None, why_not: str | None) -> dict[str, Any]:
    return {"metadata": True, "c2pa": c2pa, "why_not": why_not}
