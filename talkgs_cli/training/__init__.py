"""Optimisation loops that compose heads, rendering, networks and metrics."""
