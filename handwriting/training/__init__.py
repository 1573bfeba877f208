"""One training: data, model, optimizer and Trainer, from config to result."""
