"""Gaussians bound to a head, and rasterisers for Gaussians and meshes."""
