"""A trained model: its checkpoint, preprocessing, predictions, evaluation, ensembles, ONNX."""
