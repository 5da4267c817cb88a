"""Where reseed runs: profiles, and what runs beside it."""
