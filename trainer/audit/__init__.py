"""Finds what is wrong with pictures: labels, near copies, and pictures unlike the others of their class."""
