"""One run on disk: its config, the instantiation of its objects, its record."""
