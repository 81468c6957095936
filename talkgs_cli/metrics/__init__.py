"""Pure functions that measure images, landmarks and mouths."""
