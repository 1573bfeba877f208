"""A trained model: its checkpoint, preprocessing of images, evaluation."""
