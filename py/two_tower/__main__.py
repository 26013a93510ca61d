"""``python -m two_tower``, which torchrun can start: torchrun --nproc-per-node 2 -m two_tower train --epochs 10."""

from two_tower.cli.main import app

if __name__ == "__main__":
    app()
