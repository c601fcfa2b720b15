"""Layer graphs against the modules they were traced from."""

import pytest
import torch
from torch import nn

from tests.instruments.small_networks import FACTORIES, points_of, small_network
from theodolite.embedding import OneHot
from theodolite.errors import MissingCapability
from theodolite.instruments.bounds.layer_graph import UnsupportedLayer, layer_graph
from theodolite.instruments.bounds.layer_nodes import Affine
from theodolite.network import Network
from theodolite.space import Box, Grid


@pytest.mark.parametrize("name", FACTORIES)
def test_outputs_are_the_modules(name):
    network = small_network(name)
    x = points_of(network, 50)
    truth = network.all_outputs(torch.float64).value(x.flatten(1))
    assert torch.allclose(layer_graph(network).outputs(x), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FACTORIES)
def test_affine_nodes_know_their_transpose_and_their_sizes(name):
    graph = layer_graph(small_network(name))
    generator = torch.Generator().manual_seed(1)

    def random(shape):
        return torch.randn((5, *shape), generator=generator, dtype=torch.float64)

    for node in graph.nodes:
        if not isinstance(node, Affine):
            continue
        inputs, rows = [random(shape) for shape in node.input_shapes], random(node.shape)
        value = node.apply(inputs)
        forward = ((value.flatten(1) - node.offset()) * rows.flatten(1)).sum(1)
        backward = sum(
            (x * part.reshape(x.shape)).flatten(1).sum(1) for x, part in zip(inputs, node.transpose(rows), strict=True)
        )
        assert torch.allclose(forward, backward, rtol=1e-12, atol=1e-12)
        assert (node.apply_absolute([x.abs() for x in inputs]) >= value.abs() * (1 - 1e-12)).all()
        if node.n_terms == 0:
            assert torch.isin(value, torch.cat([x.reshape(-1) for x in inputs])).all()


def test_constant_factors_are_folded_into_the_layer_before_them():
    graph = layer_graph(small_network("erf"))
    assert [node.kind for node in graph.nodes] == ["scale", *["linear", "erf"] * 3, "linear"]


def test_one_output_counts_as_two_classes_unless_it_is_a_regression():
    network = small_network("one output")
    x = points_of(network, 4)
    graph = layer_graph(network)
    assert graph.n_outputs == 2
    assert torch.equal(graph.outputs(x)[:, 0], torch.zeros(4, dtype=torch.float64))
    assert layer_graph(network, classify=False).n_outputs == 1


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class InPlace(nn.Module):
    """What its trace adds is not what it adds: y has changed by then."""

    def forward(self, x):
        y = x * 2
        return torch.relu_(y) + y


class AcrossTheBatch(nn.Module):
    def forward(self, x):
        return x.reshape(-1).reshape(2, -1).transpose(0, 1).reshape(x.shape[0], -1)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), "1"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "1"),
        (Branching(), "Branching"),
        (InPlace(), "InPlace"),
        (AcrossTheBatch(), "reshape"),
    ],
)
def test_unknown_operations_are_named(module, told):
    with pytest.raises(UnsupportedLayer) as refusal:
        layer_graph(Network(module, Box((2,), -1.0, 1.0)))
    assert refusal.value.argument == told


def test_an_embedding_without_continuous_form_is_refused():
    network = Network(nn.Sequential(nn.Conv2d(4, 2, 2), nn.Flatten()), Grid((2, 2), 4), OneHot())
    with pytest.raises(MissingCapability, match="continuous"):
        layer_graph(network)
