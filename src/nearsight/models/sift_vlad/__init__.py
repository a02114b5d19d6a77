"""SIFT with VLAD: the classical baseline behind the same protocol."""
