"""Text and tokens: what a model reads, what it writes, and what a text means to an embedder."""
