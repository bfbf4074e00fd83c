"""The network: one technique a file, one forward for training, scoring and adaptation."""
