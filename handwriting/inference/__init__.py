"""A trained model: its checkpoint, preprocessing, evaluation, ensembles."""
