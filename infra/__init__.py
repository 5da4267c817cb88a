"""How reseed is hosted: profiles, and what runs beside it."""
