"""Training of ResNet-18: a library and a headless command that know nothing of terminals.

Importing this package imports no torch; the modules that need it import it themselves.
"""

__version__ = "0.1.0"
