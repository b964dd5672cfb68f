"""`python -m trainer`: training and export without a terminal."""

from __future__ import annotations

import sys

from trainer.cli import main
from trainer.host.stop_signals import leave_interrupts_to_the_system

if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    finally:
        leave_interrupts_to_the_system()
    sys.exit(code)
