"""Train a small net: the command ``minigrad train`` as a script.

    python examples/train.py
    python examples/train.py --data mnist --data-dir FOLDER --model mlp --save runs/mnist.npz
    python examples/train.py --help

The training loop is in minigrad/cli/trainer.py, the nets are in minigrad/cli/models.py.
"""

import sys

from minigrad.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
