"""One verb a file: a Prefect task that reads artifacts, places the work on Ray, and writes an artifact."""
