"""talkgs: one person's video in, a 3D-Gaussian talking head that says any audio out."""

__version__ = "0.1.0"
