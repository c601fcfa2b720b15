"""Minima and barriers of known surfaces beside topsearch 0.0.3 and pele 0.1.2, in the same run, turn about.

    python benchmarks/against_topsearch_pele.py [--topsearch PYTHON] [--pele PYTHON] [--rounds 5]

PYTHON is the interpreter of an environment that has the peer, apart from this one:

    python -m venv topsearch-env && topsearch-env/bin/pip install topsearch==0.0.3
    python -m venv pele-env && pele-env/bin/pip install pele==0.1.2

A peer that is not named, or cannot be imported, is left out with a sentence. Every round runs each program once on
each surface, with a seed of its own and one thread (set OMP_NUM_THREADS=1); times are of the processor, without
imports and compilation.
The peers get the surface as a numpy function of one point with its analytic gradient, about as fast as numpy gives
one; this program differentiates its own by torch. Peers: minima from random starts (pele) or basin hopping
(topsearch), then double-ended searches between each minimum and its 4 nearest, and whatever is unconnected. A barrier
is exact when it is within 1e-6 of the known one.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

SURFACES = ("mueller-brown", "mixture", "quartic-4", "quartic-6")
N_STARTS = {"mueller-brown": 25, "mixture": 80, "quartic-4": 150, "quartic-6": 600}
EXACT = 1e-6


# ---------------------------------------------------------------------- what the peers are given


class GaussianSum:
    """sum_k A_k exp(quadratic form_k), or -ln of a mixture of round Gaussians, of one point of the plane."""

    def __init__(self, surface: dict) -> None:
        self.centre = np.array(surface["centre"])
        self.amplitude = np.array(surface["amplitude"])
        self.form = np.array(surface["form"])  # xx, xy, yy
        self.logarithm = surface["logarithm"]

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        across, along = (x - self.centre).T
        xx, xy, yy = self.form
        exponent = xx * across * across + xy * across * along + yy * along * along
        shift = exponent.max() if self.logarithm else 0.0  # far away every Gaussian would be 0
        term = self.amplitude * np.exp(exponent - shift)
        value = term.sum()
        slope = np.array([term @ (2.0 * xx * across + xy * along), term @ (xy * across + 2.0 * yy * along)])
        if self.logarithm:
            return float(-np.log(value) - shift), -slope / value
        return float(value), slope


class QuarticWells:
    """sum_i a_i (y_i^2 - 1)^2 + b_i y_i of y = R x."""

    def __init__(self, surface: dict) -> None:
        self.rotation = np.array(surface["rotation"])
        self.curvature, self.tilt = np.array(surface["curvature"]), np.array(surface["tilt"])

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        y = self.rotation @ x
        excess = y * y - 1.0
        value = self.curvature @ (excess * excess) + self.tilt @ y
        return float(value), (4.0 * self.curvature * excess * y + self.tilt) @ self.rotation


def peer_function(surface: dict):
    return GaussianSum(surface) if "centre" in surface else QuarticWells(surface)


# ---------------------------------------------------------------------- the peers, in their own interpreters


def run_pele(surface: dict, n_starts: int, seed: int) -> dict:
    from pele.potentials import BasePotential
    from pele.systems import BaseSystem

    function = peer_function(surface)
    low, high = surface["low"], surface["high"]

    class Potential(BasePotential):
        def getEnergy(self, coords):
            return function(coords)[0]

        def getEnergyGradient(self, coords):
            return function(coords)

    class System(BaseSystem):
        def __init__(self):
            BaseSystem.__init__(self)
            self.params.database.accuracy = 1e-6
            self.params.structural_quench_params = {"tol": 1e-7}

        def get_potential(self):
            return Potential()

        def get_random_configuration(self):
            return np.random.uniform(low, high)

        def get_compare_exact(self):
            return lambda first, second: np.linalg.norm(first - second) < 1e-3

        def get_mindist(self):
            return lambda first, second: (np.linalg.norm(first - second), first, second)

        def get_orthogonalize_to_zero_eigenvectors(self):
            return None

    np.random.seed(seed)
    system = System()
    database = system.create_database()
    for _ in range(n_starts):
        end = system.get_random_minimized_configuration()
        if end.success:
            database.addMinimum(end.energy, end.coords)
    minima = database.minima()
    points = np.array([minimum.coords for minimum in minima])
    for first, second in near_pairs(points):
        # A fresh connection: otherwise nothing is done for two minima that some chain joins already.
        pair = system.get_double_ended_connect(minima[first], minima[second], database, verbosity=0, fresh_connect=True)
        pair.connect()
    for minimum in minima[1:]:
        system.get_double_ended_connect(minima[0], minimum, database, verbosity=0).connect()
    minima = database.minima()
    index = {minimum.id(): k for k, minimum in enumerate(minima)}
    return {
        "energy": [float(minimum.energy) for minimum in minima],
        "point": [minimum.coords.tolist() for minimum in minima],
        "saddles": [
            [index[ts.minimum1.id()], index[ts.minimum2.id()], float(ts.energy)] for ts in database.transition_states()
        ],
    }


def near_pairs(points: np.ndarray, neighbours: int = 4) -> list[tuple[int, int]]:
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    nearest = np.argsort(distance, axis=1)[:, 1 : neighbours + 1]
    return sorted({(min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row})


def run_topsearch(surface: dict, n_starts: int, seed: int) -> dict:
    import random

    from topsearch.data.coordinates import StandardCoordinates
    from topsearch.data.kinetic_transition_network import KineticTransitionNetwork
    from topsearch.global_optimisation.basin_hopping import BasinHopping
    from topsearch.global_optimisation.perturbations import StandardPerturbation
    from topsearch.potentials.potential import Potential
    from topsearch.sampling.exploration import NetworkSampling
    from topsearch.similarity.similarity import StandardSimilarity
    from topsearch.transition_states.hybrid_eigenvector_following import HybridEigenvectorFollowing
    from topsearch.transition_states.nudged_elastic_band import NudgedElasticBand

    evaluate = peer_function(surface)

    class Surface(Potential):
        def function(self, position):
            return evaluate(position)[0]

        def gradient(self, position, displacement=1e-6):
            return evaluate(position)[1]

        def function_gradient(self, position):
            return evaluate(position)

    np.random.seed(seed)
    random.seed(seed)
    potential, dim = Surface(), len(surface["low"])
    coordinates = StandardCoordinates(ndim=dim, bounds=list(zip(surface["low"], surface["high"], strict=True)))
    similarity = StandardSimilarity(distance_criterion=0.02, energy_criterion=1e-4)
    network = KineticTransitionNetwork()
    hopping = BasinHopping(
        ktn=network,
        potential=potential,
        similarity=similarity,
        step_taking=StandardPerturbation(max_displacement=1.0, proportional_distance=True),
    )
    climbing = HybridEigenvectorFollowing(
        potential=potential, ts_conv_crit=1e-5, ts_steps=75, pushoff=0.02, max_uphill_step_size=0.3
    )
    band = NudgedElasticBand(
        potential=potential, force_constant=surface["force_constant"], image_density=10.0, max_images=20,
        neb_conv_crit=1e-2,
    )  # fmt: skip
    search = NetworkSampling(
        ktn=network, coords=coordinates, global_optimiser=hopping, single_ended_search=climbing,
        double_ended_search=band, similarity=similarity,
    )  # fmt: skip
    search.get_minima(coords=coordinates, n_steps=n_starts, conv_crit=1e-6, temperature=1e6)
    search.get_transition_states("ClosestEnumeration", 4)
    search.get_transition_states("ConnectUnconnected", 4)
    return {
        "energy": [float(network.get_minimum_energy(k)) for k in range(network.n_minima)],
        "point": [network.get_minimum_coords(k).tolist() for k in range(network.n_minima)],
        "saddles": [[u, v, float(np.ravel(network.get_ts_energy(u, v))[0])] for u, v in network.G.edges()],
    }


def serve(peer: str) -> None:
    """Answer lines of JSON (surface, number of starts, seed) by lines of JSON, from a folder of its own."""
    run = {"pele": run_pele, "topsearch": run_topsearch}[peer]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # topsearch writes a log file where it stands
        for line in sys.stdin:
            request = json.loads(line)
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    began = time.process_time()
                    answer = run(request["surface"], request["n_starts"], request["seed"])
                    answer["seconds"] = time.process_time() - began
                except Exception as error:  # noqa: BLE001 - the sentence goes to the other process
                    answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


class Peer:
    """A peer's interpreter, kept alive between the rounds."""

    def __init__(self, name: str, python: str | None) -> None:
        self.name, self.process = name, None
        if python is None:
            print(f"{name}: left out, no interpreter named (see --help for how to install it)")
            return
        probe = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True, check=False)
        if probe.returncode:
            print(f"{name}: left out, {python} cannot import it: {probe.stderr.strip().splitlines()[-1]}")
            return
        self.process = subprocess.Popen(
            [python, os.path.abspath(__file__), "--serve", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.ask(description("mueller-brown"), 2, 0)  # what is imported or compiled on first use

    def ask(self, surface: dict, n_starts: int, seed: int) -> dict:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"surface": surface, "n_starts": n_starts, "seed": seed}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "its process ended"}

    def close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()


# ---------------------------------------------------------------------- this program


def known_surface(name: str):
    from theodolite.systems import gaussian_mixture, surface

    return gaussian_mixture(2, 0) if name == "mixture" else surface(name)


def description(name: str) -> dict:
    """The surface as numbers, for a process that has neither torch nor this package."""
    from theodolite.systems import mixtures, surfaces

    known = known_surface(name)
    dim = known.field.space.n_coordinates
    about = {"low": [known.field.space.low] * dim, "high": [known.field.space.high] * dim, "force_constant": 10.0}
    if name == "mueller-brown":
        form = (surfaces._XX, surfaces._XY, surfaces._YY)
        about |= {"centre": surfaces._CENTRE, "amplitude": surfaces._AMPLITUDE, "form": form, "logarithm": False}
        return about | {"force_constant": 500.0}
    if name == "mixture":
        mixture = mixtures.seeded_mixture(2, 0)
        precision = -0.5 / mixture.widths**2
        amplitude = mixture.weights / (2.0 * np.pi * mixture.widths**2)
        form = [precision.tolist(), [0.0] * len(precision), precision.tolist()]
        about |= {"centre": mixture.centres.tolist(), "amplitude": amplitude.tolist(), "form": form}
        return about | {"logarithm": True}
    wells = surfaces.wells(dim)
    return about | {"rotation": wells[0].tolist(), "curvature": wells[1].tolist(), "tilt": wells[2].tolist()}


def check_description(name: str) -> None:
    """Both sides look at one surface: values and gradients agree at random points."""
    import torch

    known, function = known_surface(name), peer_function(description(name))
    points = known.field.space.draw(50, torch.Generator().manual_seed(0)).double()
    value, gradient = known.field.value_and_gradient(points)
    for point, energy, slope in zip(points.numpy(), value.tolist(), gradient.numpy(), strict=True):
        theirs = function(point)
        if not (np.isclose(theirs[0], energy, rtol=1e-9) and np.allclose(theirs[1], slope, rtol=1e-7, atol=1e-9)):
            raise SystemExit(f"{name}: the peers' function differs from the field")


def ours(name: str, seed: int) -> dict:
    import torch

    from theodolite.search.continuous_network import ContinuousSearch, find_network

    field = known_surface(name).field
    search = ContinuousSearch(field, n_starts=N_STARTS[name])
    began = time.process_time()
    network = find_network(field, torch.Generator().manual_seed(seed), search=search)
    seconds = time.process_time() - began
    saddles = [[*ends, level] for ends, level in zip(network.ends.tolist(), network.level.tolist(), strict=True)]
    return {
        "energy": network.energy.tolist(),
        "point": network.point.tolist(),
        "saddles": saddles,
        "seconds": seconds,
    }


def judge(name: str, found: dict) -> dict:
    """Known minima found, and exact barriers among them, of all pairs; a pair with a missing minimum is not exact."""
    from theodolite.search.passes import bottlenecks

    known = known_surface(name)
    truth, barrier = known.known_minima(), known.known_barriers()
    point, energy = np.array(found["point"]), np.array(found["energy"])
    gap = np.linalg.norm(truth.point[:, None] - point, axis=2)
    nearest, there = gap.argmin(1), gap.min(1) < 0.02
    saddles = np.array(found["saddles"]).reshape(-1, 3)
    ends = saddles[:, :2].astype(int)
    theirs = bottlenecks(len(energy), ends[:, 0], ends[:, 1], saddles[:, 2], energy)[np.ix_(nearest, nearest)]
    pairs = np.triu_indices(len(truth.energy), 1)
    both = (there[:, None] & there)[pairs]
    error = np.abs(theirs - barrier)[pairs]
    return {
        "minima": int(there.sum()),
        "exact": int((both & (error < EXACT)).sum()),
        "unjoined": int((both & ~np.isfinite(theirs[pairs])).sum()),
        "worst": float(error[both & np.isfinite(error)].max(initial=0.0)),
        "n_minima": len(truth.energy),
        "n_pairs": len(pairs[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topsearch", metavar="PYTHON")
    parser.add_argument("--pele", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--surfaces", nargs="+", choices=SURFACES, default=list(SURFACES))
    parser.add_argument("--serve", choices=("topsearch", "pele"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    peers = [peer for peer in (Peer("topsearch", arguments.topsearch), Peer("pele", arguments.pele)) if peer.process]
    ours("mueller-brown", 0)  # compiles
    for name in arguments.surfaces:
        check_description(name)
        print(f"{name}:", flush=True)
        runs: dict[str, list[dict]] = {"theodolite": [], **{peer.name: [] for peer in peers}}
        for seed in range(arguments.rounds):
            runs["theodolite"].append(ours(name, seed))
            for peer in peers:
                runs[peer.name].append(peer.ask(description(name), N_STARTS[name], seed))
        report(name, runs)
    for peer in peers:
        peer.close()


def report(name: str, runs: dict[str, list[dict]]) -> None:
    own = [run["seconds"] for run in runs["theodolite"]]
    for program, answers in runs.items():
        failed = [answer["error"] for answer in answers if "error" in answer]
        good = [(answer, base) for answer, base in zip(answers, own, strict=True) if "error" not in answer]
        if failed:
            print(f"  {program}: {len(failed)} of {len(answers)} runs failed, the first with {failed[0]}", flush=True)
        if not good:
            continue
        verdicts = [judge(name, answer) for answer, _ in good]
        seconds = np.array([answer["seconds"] for answer, _ in good])
        ratio = seconds / np.array([base for _, base in good])
        counts = {key: [verdict[key] for verdict in verdicts] for key in ("minima", "exact", "unjoined", "worst")}
        print(
            f"  {program:10s} {np.median(seconds):7.2f} CPU-s ({seconds.min():.2f} to {seconds.max():.2f}), "
            f"{np.median(ratio):6.1f} times ours ({ratio.min():.1f} to {ratio.max():.1f}); "
            f"minima {min(counts['minima'])} to {max(counts['minima'])} of {verdicts[0]['n_minima']}, "
            f"exact barriers {min(counts['exact'])} to {max(counts['exact'])} of {verdicts[0]['n_pairs']}, "
            f"unjoined pairs up to {max(counts['unjoined'])}, largest error {max(counts['worst']):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
