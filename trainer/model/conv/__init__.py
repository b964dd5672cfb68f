"""Convolutions of a ResNet by matrix products, where those are faster on a CPU than the library's own kernels."""
