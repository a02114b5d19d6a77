"""Face vectors: whose face it is, and which faces are of one person."""
