"""How a recipe and its overrides are written, read as plain data."""
