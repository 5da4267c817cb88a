"""The Prefect tasks (make, ask, train, publish, report), and what they need to run on Ray and stop cleanly."""
