"""Texts: a model's own text tower, or ConSE for a classifier."""
