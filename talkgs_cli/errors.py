"""The errors talkgs raises on purpose, each with its exit code; it holds no handling."""


class TalkgsError(Exception):
    """A failure the user can act on: what happened, then what to do.

    Args:
        message: What happened, with the offending value.
        hint: What to do next, if there is something to do.
    """

    exit_code = 1
    kind = "bug"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TalkgsError):
    """The command line itself is wrong: unknown preset, conflicting options, stage order."""

    exit_code = 2
    kind = "usage"


class BadInput(TalkgsError):
    """A file the user gave can't be used: missing, damaged, without a face, too short."""

    exit_code = 3
    kind = "bad_input"


class MachineLacks(TalkgsError):
    """This machine lacks something: disk space, permission, ffmpeg, a CUDA device."""

    exit_code = 4
    kind = "machine"


class DownloadFailed(TalkgsError):
    """An asset could not be fetched or its SHA-256 is wrong."""

    exit_code = 5
    kind = "download"
