"""Cells, curves, pictures and colours."""
