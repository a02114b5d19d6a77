"""Faces as vectors: whose are they, and which belong together."""
