"""What embeddings are for: estimators over arrays, which know neither pictures nor stores."""
