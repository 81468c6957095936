"""Gaussians bound to a head, and rasterisers for Gaussians and meshes."""

from talkgs_cli.rendering.rasterizer import rasterize

__all__ = ["rasterize"]
