"""The training loop, the step and the optimizers."""
