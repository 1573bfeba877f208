"""Neural networks as plain nn.Modules, and classical baselines: uint8 images in, logits or probabilities out."""
