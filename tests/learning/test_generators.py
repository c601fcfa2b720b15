"""Generator networks: the papers' shapes, saved and loaded exactly, rows apart, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from theodolite.errors import UserError
from theodolite.learning.generators import (
    PAPER_LATENT,
    PAPER_LAYERS,
    ConvGenerator,
    GeneratorNetwork,
    MLPGenerator,
    build_generator,
    load_generator,
    save_generator,
)

_PAPER_SHAPES = {
    "digits 0-3": (1, 16, 16),
    "spots and stripes": (1, 16, 16),
    "digits 0-9": (1, 64, 64),
    "ivy texton": (3, 32, 32),
    "multiscale ivy": (3, 64, 64),
    "cat faces": (3, 64, 64),
}


def _networks() -> list[GeneratorNetwork]:
    torch.manual_seed(0)
    return [
        MLPGenerator(3, (5,), (7,), output="linear", centre=torch.arange(5.0), spread=2.0),
        MLPGenerator(2, (1, 4, 4)),
        ConvGenerator(2, (1, 16, 16), centre=0.5, spread=0.5),
    ]


@pytest.mark.parametrize("name", sorted(PAPER_LAYERS))
def test_the_papers_table_makes_the_papers_images(name: str) -> None:
    shape = _PAPER_SHAPES[name]
    network = ConvGenerator(PAPER_LATENT[name], shape, PAPER_LAYERS[name])
    made = network(torch.randn(2, PAPER_LATENT[name], generator=torch.Generator().manual_seed(0)))
    assert made.shape == (2, *shape)
    assert bool((made.abs() < 1).all())


@pytest.mark.parametrize("k", range(3))
def test_a_saved_generator_makes_the_same_points(k: int, tmp_path: Path) -> None:
    network = _networks()[k]
    save_generator(network, tmp_path / "g.safetensors")
    loaded = load_generator(tmp_path / "g.safetensors")
    z = torch.randn(4, network.latent, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(z), network(z))
    assert loaded.spec() == network.spec()
    assert not loaded.training


@pytest.mark.parametrize("k", range(3))
def test_rows_do_not_influence_each_other(k: int) -> None:
    network = _networks()[k].double()
    z = torch.randn(5, network.latent, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order = torch.tensor([3, 1, 4, 0, 2])
    together = network(z)
    assert torch.allclose(network(z[order]), together[order], atol=1e-12)
    assert torch.allclose(torch.cat([network(row) for row in z.split(1)]), together, atol=1e-12)


def test_tanh_outputs_lie_about_the_centre_within_the_spread() -> None:
    network = MLPGenerator(2, (3,), (), output="tanh", centre=torch.tensor([1.0, 2.0, 3.0]), spread=0.5)
    made = network(100 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0)))
    away = (made - torch.tensor([1.0, 2.0, 3.0])).abs()
    assert float(away.max()) <= 0.5
    assert float(away.max()) > 0.49


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("latent", lambda: MLPGenerator(0, (3,))),
        ("latent", lambda: ConvGenerator(-1, (1, 16, 16))),
        ("latent", lambda: MLPGenerator(2.5, (3,))),  # type: ignore[arg-type]
        ("output", lambda: MLPGenerator(2, (3,), output="relu")),
        ("activation", lambda: MLPGenerator(2, (3,), activation="sine")),
        ("centre", lambda: MLPGenerator(2, (3,), centre=float("nan"))),
        ("layers", lambda: ConvGenerator(2, (1, 28, 28))),
        ("layers", lambda: ConvGenerator(2, (256,))),
        ("layers", lambda: ConvGenerator(2, (1, 8, 8), ((4, 4, 1), (1, 4, 2)))),
        ("generator", lambda: build_generator({"kind": "diffusion"})),
    ],
)
def test_what_is_no_generator_is_refused_by_name(argument: str, make: object) -> None:
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.argument == argument


def test_files_that_hold_no_generator_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(UserError, match="generator"):
        load_generator(path)
    save_generator(MLPGenerator(2, (3,)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="generator"):
        load_generator(path)
