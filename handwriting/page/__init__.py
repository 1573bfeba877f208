"""The page to write on, and how it is served."""
