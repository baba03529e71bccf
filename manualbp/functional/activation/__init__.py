"""The activations: a file a family."""
