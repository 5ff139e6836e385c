"""Vectors that fit the user's question better: what is learned on frozen embeddings, in seconds."""
