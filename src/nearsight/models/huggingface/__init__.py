"""Models in the Hugging Face layout: from a folder or from a hub."""
