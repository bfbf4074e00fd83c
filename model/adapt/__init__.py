"""Training on the validation stream: test-time training that scores first, and adaptation before packing."""
