"""What embeddings are for: estimators over arrays, which know neither images nor stores."""
