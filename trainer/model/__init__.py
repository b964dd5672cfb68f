"""ResNet-18, its convolutions, its checkpoints."""
