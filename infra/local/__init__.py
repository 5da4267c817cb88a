"""The Prefect server of a project on this machine, and what looks after it."""
