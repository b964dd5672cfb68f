"""Training of ResNet-18: a library and a headless command, without a screen. Importing it does not import torch."""

__version__ = "0.1.0"
