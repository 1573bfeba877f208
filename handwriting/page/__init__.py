"""The drawing page and its server."""
