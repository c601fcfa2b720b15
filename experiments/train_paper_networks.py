"""Trains the networks of paper 000 (Liu et al. 2023, section 5.1) on MNIST-0/1 and prints its test
accuracy beside ours.

    python experiments/train_paper_networks.py mnist.npz [--networks CNN ResNet-18] [--train 4000]

A full MNIST file is an `.npz` with x_train, y_train, x_test, y_test, or a folder of IDX files. The CNN
stops at the paper's accuracy, since its training would end above it; the others train until they reach it
or run out of epochs. `--train` limits the training images of the two ResNets, which take about a minute of
one core per thousand images and epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from theodolite.zoo.datasets import mnist, subset, toy_images
from theodolite.zoo.networks import NoiseAugmentedResNet, PaperCNN, ResNet18, ToyCNN, initialised
from theodolite.zoo.training import PAPER_ACCURACY, PAPER_SETTINGS, train

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "CNN": PaperCNN,
    "CNN-Toy": ToyCNN,
    "ResNet-18": ResNet18,
    "ResNet-AUG": NoiseAugmentedResNet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--train", type=int, default=12_665, help="training images of the ResNets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the weights, one .safetensors a network")
    arguments = parser.parse_args()
    digits = mnist(arguments.file, classes=(0, 1))
    print(f"{digits.source}: {len(digits.y_train)} train, {len(digits.y_test)} test")
    headings = f"{'paper test':>12}{'our test':>12}{'our train':>12}{'images':>9}{'epochs':>8}{'seconds':>9}"
    print(f"{'network':<12}{headings}", flush=True)
    for name in arguments.networks:
        images = toy_images(digits) if name == "CNN-Toy" else digits
        images = subset(images, arguments.train) if name.startswith("ResNet") else images
        module = initialised(NETWORKS[name], arguments.seed)
        result = train(module, images, replace(PAPER_SETTINGS[name], seed=arguments.seed))
        figures = f"{PAPER_ACCURACY[name]:>12.2%}{result.test_accuracy:>12.2%}{result.train_accuracy:>12.2%}"
        print(f"{name:<12}{figures}{len(images.y_train):>9}{result.epochs:>8}{result.seconds:>9.0f}", flush=True)
        if arguments.save is not None:
            arguments.save.mkdir(parents=True, exist_ok=True)
            save_file(module.state_dict(), arguments.save / f"{name}.safetensors")


if __name__ == "__main__":
    main()
