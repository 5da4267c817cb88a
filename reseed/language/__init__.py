"""Text and tokens: what a model reads and writes, and embeddings of it."""
