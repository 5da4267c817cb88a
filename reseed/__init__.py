"""The core of reseed: it knows neither Prefect nor Ray."""
