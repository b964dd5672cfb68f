"""Convolutions of a ResNet by matrix products, where these are faster on a CPU than the library's own kernels."""
