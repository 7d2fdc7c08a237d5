"""Training without what may differ between one process and several: batch norms keep their statistics, and plain
gradient descent takes the place of AdamW, so that the weights after one step hold its gradient.

As a program it is one of the processes that torchrun starts (`learning/worker.py`).
"""

import sys
from pathlib import Path

import torch

from defraction.learning import model, worker


class _Fixed(torch.nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


def freeze(setattr=setattr):
    """Change `model.build` and torch's AdamW; `setattr` may be that of pytest's monkeypatch."""
    build = model.build

    def frozen(architecture, labels):
        network = build(architecture, labels)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.ones_(module.weight)  # zero in the last of each block: no gradient would reach the others
                module.__class__ = _Fixed
        return network

    def descent(parameters, lr, fused):
        return torch.optim.SGD(parameters, lr=lr)

    setattr(model, "build", frozen)
    setattr(torch.optim, "AdamW", descent)


if __name__ == "__main__":
    freeze()
    worker.main(Path(sys.argv[1]))
