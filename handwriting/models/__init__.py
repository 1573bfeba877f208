"""Neural networks as plain nn.Modules, and classical baselines: uint8 images in, logits or probabilities out.

A model takes ``num_classes``, ``image_size`` (height, width) and ``channels`` (1 grey, 3 colour) as keyword arguments.
"""
