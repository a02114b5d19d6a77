"""The HTTP service: embeddings for clients that exist, and collections."""
