"""The classifiers of paper 000 (Liu et al. 2023, "Gradient-based Wang-Landau Algorithm", ICML, section 5.1).

Each takes *embedded* images: one-hot planes, floats of shape (batch, levels, rows, columns), and gives
logits of shape (batch, outputs). Each is an `nn.Sequential` whose first child, `stem`, is the paper's 3x3
convolution from one-hot planes to 3 channels without an activation: it is linear in the planes, so
`zoo.training` and `Network` can replace it by a table look-up that never builds the planes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

STEM_CHANNELS = 3
Module = TypeVar("Module", bound=nn.Module)


def initialised(factory: Callable[[], Module], seed: int) -> Module:
    """`factory()` with its weights drawn from `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def _stem(levels: int) -> nn.Conv2d:
    return nn.Conv2d(levels, STEM_CHANNELS, 3, padding=1)


class PaperCNN(nn.Sequential):
    """CNN-MNIST-0/1 of paper 000: stem, 3x3 convolutions to 32 and 128 channels, average pooling, one
    linear layer.

    Input (batch, levels, rows, columns) one-hot planes; output (batch, outputs) logits. With one output
    and the classes 0 and 1 the output is the log-odds of class 1. The paper's test accuracy is 97.8%.
    """

    def __init__(self, levels: int = 256, outputs: int = 1) -> None:
        super().__init__(
            OrderedDict(
                stem=_stem(levels),
                convolution_1=nn.Conv2d(STEM_CHANNELS, 32, 3, padding=1),
                relu_1=nn.ReLU(),
                convolution_2=nn.Conv2d(32, 128, 3, padding=1),
                relu_2=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                output=nn.Linear(128, outputs),
            )
        )


class ToyCNN(PaperCNN):
    """CNN-Toy of paper 000: the same network for 5x5 binary images, (batch, 2, 5, 5); the paper's test
    accuracy is 99.7%.
    """

    def __init__(self, outputs: int = 1) -> None:
        super().__init__(levels=2, outputs=outputs)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut (He et al. 2015, arXiv:1512.03385,
    figure 5 left).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        if stride == 1 and channels_in == channels_out:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """ResNet-18-MNIST-0/1 of paper 000: He et al. 2015 (arXiv:1512.03385, table 1, 18 layers) for 28x28
    images.

    Behind the one-hot stem, the 7x7 stride-2 convolution and the max pooling that serve 224x224
    photographs are one 3x3 convolution, as the same article does for its 32x32 images. Input (batch,
    levels, rows, columns); output (batch, outputs). The paper's test accuracy is 100%.
    """

    def __init__(self, levels: int = 256, outputs: int = 1) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            stem=_stem(levels),
            convolution=nn.Conv2d(STEM_CHANNELS, 64, 3, padding=1, bias=False),
            normalisation=nn.BatchNorm2d(64),
            relu=nn.ReLU(),
        )
        before = 64
        for stage, channels in enumerate((64, 128, 256, 512), start=1):
            stride = 1 if stage == 1 else 2
            layers[f"stage_{stage}"] = nn.Sequential(
                BasicBlock(before, channels, stride), BasicBlock(channels, channels, 1)
            )
            before = channels
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(512, outputs)
        super().__init__(layers)


class PreActivationBlock(nn.Module):
    """x + convolution(swish(convolution(swish(x)))) (He et al. 2016, arXiv:1603.05027), without
    normalisation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class NoiseAugmentedResNet(nn.Sequential):
    """ResNet-AUG-MNIST-0/1 of paper 000, "a ResNet from GWG" trained with noise added to the digits.

    Paper 000 does not give its sizes. This is a small pre-activation ResNet in the manner of the energy
    networks of Gibbs with Gradients (Grathwohl et al. 2021, arXiv:2102.04509): swish, no normalisation,
    three resolutions, mean pooling. What makes it the paper's network is its training:
    `TrainingSettings(noise=...)`. Input (batch, levels, rows, columns); output (batch, outputs). The
    paper's test accuracy is 99.95%.
    """

    def __init__(self, levels: int = 256, outputs: int = 1, channels: int = 32) -> None:
        super().__init__(
            OrderedDict(
                stem=_stem(levels),
                convolution=nn.Conv2d(STEM_CHANNELS, channels, 3, padding=1),
                block_1=PreActivationBlock(channels),
                down_1=nn.AvgPool2d(2, ceil_mode=True),
                block_2=PreActivationBlock(channels),
                down_2=nn.AvgPool2d(2, ceil_mode=True),
                block_3=PreActivationBlock(channels),
                block_4=PreActivationBlock(channels),
                swish=nn.SiLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                output=nn.Linear(channels, outputs),
            )
        )
