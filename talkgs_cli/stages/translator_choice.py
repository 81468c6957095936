"""Which base translator a speaker starts from, and whether it hears with the same encoder.

`fit` and `speak` take what the user wrote; the settings they record name exact weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from talkgs_cli.assets.translators import TranslatorRelease, find_translator, released_names
from talkgs_cli.config import SpeakConfig, TranslatorConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import Progress
from talkgs_cli.speaker import SpeakerFolder

if TYPE_CHECKING:
    from talkgs_cli.networks.base_translator import BaseTranslator
    from talkgs_cli.networks.motion_translator import MotionTranslator

RELEASE = "motion-translator"
"""The translator that comes with talkgs."""

AUTO, NONE = "auto", "none"


def settled(
    speaker: SpeakerFolder, config: TranslatorConfig, progress: Progress
) -> TranslatorConfig:
    """Settings of `fit` with the encoder of the clip and the exact weights to start from.

    Raises:
        UsageError: there is no such translator.
        BadInput: it reads the features of another encoder than the clip was heard with.
        DownloadFailed: the Hub doesn't give it.
    """
    if speaker.has_audio:
        config = replace(config, encoder=speaker.load_audio_features().encoder)
    wanted = config.translator
    if wanted == AUTO:
        wanted = RELEASE if RELEASE in released_names() else NONE
    if wanted == NONE:
        return replace(config, translator=NONE, translator_sha256="")
    release = find_translator(wanted, progress)
    hears_with = _encoder_of(release)
    if not speaker.has_audio:
        config = replace(config, encoder=hears_with)
    elif hears_with != config.encoder and config.translator == AUTO:
        progress.note(
            f"The clip was heard with {config.encoder}, for which no translator comes with "
            "talkgs: the mouth is learnt from this clip alone."
        )
        return replace(config, translator=NONE, translator_sha256="")
    elif hears_with != config.encoder:
        raise BadInput(
            f"The translator {release.name} reads {hears_with} features; {speaker.path} was "
            f"prepared with {config.encoder}.",
            hint=f"Prepare it again with --encoder {hears_with}, or choose another translator.",
        )
    return replace(config, translator=release.name, translator_sha256=release.model_sha256)


def settled_to_speak(config: SpeakConfig, progress: Progress) -> SpeakConfig:
    """Settings of `speak` with the exact weights, where a translator was named.

    Raises:
        UsageError: there is no such translator.
        DownloadFailed: the Hub doesn't give it.
    """
    if config.translator is None:
        return config
    release = find_translator(config.translator, progress)
    return replace(config, translator=release.name, translator_sha256=release.model_sha256)


def load_base(config: TranslatorConfig | SpeakConfig) -> BaseTranslator | None:
    """The base translator that settled settings name.

    Raises:
        BadInput: it is no base translator, or not the one it was when the settings were settled.
    """
    from talkgs_cli.networks.base_translator import BaseTranslator

    if config.translator in (None, NONE):
        return None
    release = find_translator(str(config.translator))
    if release.model_sha256 != config.translator_sha256:
        raise BadInput(
            f"The translator {release.name} has changed while it was used.",
            hint="Run the command again.",
        )
    return BaseTranslator.load(release.folder)


def borrowed_translator(speaker: SpeakerFolder, base: BaseTranslator) -> MotionTranslator:
    """A base translator's way of speaking with this speaker's lips; nothing is learnt.

    Raises:
        BadInput: too few usable frames.
    """
    from talkgs_cli.runtime import SilentProgress
    from talkgs_cli.stages.fit_translator import translator_of

    config = TranslatorConfig(encoder=base.about.encoder)
    return translator_of(
        speaker, speaker.load_tracking(), config, base, SilentProgress(), heard=False
    )


def _encoder_of(release: TranslatorRelease) -> str:
    encoder = release.config.get("encoder")
    if not isinstance(encoder, str):
        raise BadInput(
            f"{release.folder / 'config.json'} names no encoder.", hint="Get the translator again."
        )
    return encoder
