"""A rendered face put into a frame of the speaker: feathered, or joined by a network."""

from talkgs_cli.compositing.compositor import Compositor

__all__ = ["Compositor"]
