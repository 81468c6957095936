"""prepare, fit, speak, score: each reads like its own table of contents."""
