"""Text encoders: a model's own, or ConSE for a classifier."""
