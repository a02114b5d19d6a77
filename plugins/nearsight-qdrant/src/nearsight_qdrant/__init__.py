"""Collections of nearsight in Qdrant: ``qdrant:///directory?collection=NAME`` or ``qdrant://host:6333?…``."""
