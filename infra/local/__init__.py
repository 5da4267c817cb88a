"""A project's Prefect server on this machine, and what looks after it."""
