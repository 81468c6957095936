"""Audio encoders and the motion translator."""
