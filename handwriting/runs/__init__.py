"""One run on disk: its config, how its objects are made, its record."""
