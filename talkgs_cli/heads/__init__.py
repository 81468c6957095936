"""Parametric head models behind `types.HeadModel`."""
