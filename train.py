"""Train a convolutional network whose every gradient was derived by hand.

python train.py
"""

import sys

from manualbp.training.cli import main

if __name__ == "__main__":
    sys.exit(main())
