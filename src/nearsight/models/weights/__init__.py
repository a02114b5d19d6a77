"""Weights that packages ship, converted once to ONNX without torch."""
