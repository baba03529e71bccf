"""The numbers behind the rules: forward primitives only, no autograd. `reference` is the truth they answer to."""
