"""PostgreSQL with pgvector: rows, vectors and binary columns of a collection in tables of their own."""
