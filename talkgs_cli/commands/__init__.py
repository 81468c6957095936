"""One file a command: options in, one stage called, its answer shown. No maths, nothing heavy."""
