"""From frames to landmarks, masks and a fitted head; no file layout, no rendering."""
