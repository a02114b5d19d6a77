"""Buckets: objects, their clock, and a lock of whoever writes; collections and jobs stand on it."""
