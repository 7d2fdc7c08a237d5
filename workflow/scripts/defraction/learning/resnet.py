"""The networks of torchvision for one grey channel, to read trained weights into without importing torchvision.

Importing torchvision takes over a second of every job of predictions (it imports PyTorch's compiler); training has the
time and takes its networks from there. Names of parameters and arithmetic are the same, which a test holds.
"""

import torch
from torch import nn

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks of the four stages, He et al. 2016 (10.1109/CVPR.2016.90), Table 1."""
PLAIN = ("resnet18", "resnet34")
"""Those whose blocks have two convolutions of 3 x 3 instead of a bottleneck."""


class Block(nn.Module):
    """A residual block: convolutions of `sizes` pixels to `widths` channels, with batch norms, beside a shortcut.

    The first convolution of 3 x 3 takes the stride.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], sizes: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.convolutions = len(sizes)
        before = channels
        for number, (width, size) in enumerate(zip(widths, sizes, strict=True), start=1):
            step = stride if number == sizes.index(3) + 1 else 1
            self.add_module(f"conv{number}", nn.Conv2d(before, width, size, step, size // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
            before = width
        self.downsample = None
        if stride > 1 or channels != before:
            self.downsample = nn.Sequential(nn.Conv2d(channels, before, 1, stride, bias=False), nn.BatchNorm2d(before))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.convolutions + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            if number < self.convolutions:
                x = nn.functional.relu(x, inplace=True)
        return nn.functional.relu(x + shortcut, inplace=True)


class Last(nn.Linear):
    """The last layer, in single precision also where the others run in bfloat16, whose eight bits let labels tie."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class ResNet(nn.Module):
    """Input (n, 1, y, x), output (n, labels): logits. Parameters are whatever PyTorch starts layers with."""

    def __init__(self, architecture: str, labels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, blocks in enumerate(BLOCKS[architecture]):
            width = 64 * 2**stage
            widths, sizes = (
                ((width, width), (3, 3)) if architecture in PLAIN else ((width, width, 4 * width), (1, 3, 1))
            )
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(Block(channels, widths, sizes, 2 if stage and not block else 1))
                channels = widths[-1]
            self.add_module(f"layer{stage + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = Last(channels, labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(nn.functional.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))
