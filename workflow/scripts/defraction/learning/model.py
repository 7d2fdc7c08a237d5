"""The network: torchvision ResNets with one grey channel in and one output per label; files with a card beside them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from defraction.learning.resnet import BLOCKS, Last, ResNet


def build(architecture: str, labels: int) -> nn.Module:
    """An untrained ResNet (He et al. 2016, 10.1109/CVPR.2016.90), channels-last, for input (n, 1, y, x) in [0, 1].

    Its first convolution takes one grey channel; the last batch norm of every residual block starts at zero, so that
    each block begins as the identity (Goyal et al. 2017, arXiv:1706.02677); its last layer stays in single precision
    (`Last`). Raises ValueError for an unknown name.
    """
    if architecture not in BLOCKS:
        raise ValueError(f"learning.architecture is {architecture!r}; allowed: {', '.join(BLOCKS)}")
    import torchvision

    network = getattr(torchvision.models, architecture)(num_classes=labels, zero_init_residual=True)
    grey = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(grey.weight, mode="fan_out", nonlinearity="relu")
    network.conv1 = grey
    drawn = network.fc
    with torch.device("meta"):
        network.fc = Last(drawn.in_features, labels)
    network.fc.weight, network.fc.bias = drawn.weight, drawn.bias
    return network.to(memory_format=torch.channels_last)


def save(network: nn.Module, card: dict[str, Any], weights: Path | str, card_path: Path | str) -> None:
    """Write weights as safetensors and the card as JSON; the card must name `architecture` and `labels`."""
    write_weights(network.state_dict(), card["architecture"], weights)
    write_card(card, card_path)


def write_weights(state: Mapping[str, torch.Tensor], architecture: str, path: Path | str) -> None:
    """Write a network's state as safetensors, readable for everybody."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, str(path), metadata={"architecture": architecture, "format": "pt"})
    os.chmod(path, 0o644)  # safetensors writes for the owner alone


def write_card(card: Mapping[str, Any], path: Path | str) -> None:
    """Write a card as JSON."""
    Path(path).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def load(weights: Path | str, card_path: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """Read a network and its card, in evaluation mode; raises ValueError if weights and card do not belong together."""
    card = json.loads(Path(card_path).read_text(encoding="utf-8"))
    if card["architecture"] not in BLOCKS:
        raise ValueError(f"{card_path}: unknown architecture {card['architecture']!r}; known: {', '.join(BLOCKS)}")
    with torch.device("meta"):
        network = ResNet(card["architecture"], len(card["labels"]))
    network = network.to_empty(device="cpu").to(memory_format=torch.channels_last)
    try:
        network.load_state_dict(load_file(str(weights)))
    except RuntimeError as error:
        raise ValueError(
            f"{weights}: no {card['architecture']} with {len(card['labels'])} labels, as {card_path} says; train again"
        ) from error
    return network.eval(), card


def choose_device(device: str) -> torch.device:
    """`auto`, `cpu` or `gpu` as a torch device; raises ValueError if a GPU is asked for and there is none.

    Single precision is that of a CPU from then on: by default convolutions on a GPU keep 10 bits of it (TF32).
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ValueError(f"runtime.device is {device!r}; allowed: auto, cpu, gpu")
    present = torch.cuda.is_available()
    if device == "gpu" and not present:
        raise ValueError("runtime.device is 'gpu' but torch finds no CUDA device; set it to auto or cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if present and device != "cpu" else "cpu")
