"""Collections below a prefix of a bucket: the tables of LanceDB, small documents, and a lock."""
