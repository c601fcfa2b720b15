"""Certificates on MNIST digits: how close the proven lower bound comes to the closest flip point found.

    python benchmarks/boundary_certificates.py [--mnist FILE] [--images 50] [--seed 0] [--networks 784-50-50 ...]

Networks of `zoo.flip_networks`, trained on the bundled 5,000 digits; images are test digits of --mnist, or else of the
bundled ones, of whatever class the network gives them. Distances by `closest_flips`, effort "regular"; seconds are
those of the processor on one thread. A second table starts the certificate from no known flip, so that the search's
answer cannot hold it down: any bound above a distance found would be a mistake. Bars, for the median of lower bound /
distance: 784-50-50 .99 at .3 s an image; 784-200-200 .97 at 6 s, aim min .95; the small CNN .80, aim .95.
"""

import argparse
import time

import torch

from theodolite.instruments.bounds.certificates import distance_lower_bounds
from theodolite.search.closest_flips import closest_flips
from theodolite.zoo.datasets import mnist
from theodolite.zoo.flip_networks import FlipSubject, grey_images, train_dense, train_erf, train_small_cnn

NETWORKS = {
    "784-50-50": lambda: train_dense((50, 50)),
    "784-200-200": lambda: train_dense((200, 200)),
    "small CNN": train_small_cnn,
    "erf": train_erf,
}
BARS = {"784-50-50": (0.99, 0.3), "784-200-200": (0.97, 6.0), "small CNN": (0.80, None), "erf": (None, None)}
COSTLY = ("small CNN", "erf")


def images_of(subject: FlipSubject, path: str | None, n: int, seed: int) -> torch.Tensor:
    if path is None:
        x = subject.x_test
    else:
        levels = mnist(path, seed=seed).x_test[: 4 * n]
        x = grey_images(levels)
        if subject.wavelets is not None:
            x = subject.wavelets.features(x).float()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[:n]]


def report(name: str, path: str | None, n_images: int, seed: int) -> None:
    subject = NETWORKS[name]()
    network = subject.network()
    x = images_of(subject, path, n_images, seed).double()
    exact = network.all_outputs(torch.float64)
    flat = x.flatten(1)
    own = exact.value(flat).argmax(1)
    train = subject.x_train.flatten(1)
    outputs = network.all_outputs()
    reference = (train, outputs.value(train).argmax(1))
    generator = torch.Generator().manual_seed(seed)
    flips = closest_flips(outputs, exact, flat, own, reference=reference, effort="regular", generator=generator)
    found = flips.distance
    print(
        f"\n{name}: test accuracy {subject.test_accuracy:.3f}, {len(x)} images, distance {found.median():.4f} (median)"
    )
    print("  method     from    median   mean    min   share > .95   CPU s/image   longest")
    runs = [("lipschitz", found, "found"), ("crown", found, "found"), ("cap", found, "found")]
    if name not in COSTLY:
        runs.append(("cap", torch.full_like(found, torch.inf), "inf"))
    for method, upper, start in runs:
        ratio, seconds = [], []
        for k in range(len(x)):
            begun = time.process_time()
            bound = distance_lower_bounds(network, x[k : k + 1], own[k : k + 1], upper[k : k + 1], method=method)
            seconds.append(time.process_time() - begun)
            ratio.append(float(bound.distance[0] / found[k]))
        r, t = torch.tensor(ratio), torch.tensor(seconds[1:] or seconds)  # the first call compiles
        share = (r > 0.95).float().mean()
        print(
            f"  {method:9s}  {start:5s}  {r.median():7.4f} {r.mean():6.4f} {r.min():6.3f}   {share:8.2f}"
            f"     {t.mean():9.3f}   {t.max():8.2f}",
            flush=True,
        )
        if float(r.max()) > 1:
            print(f"  UNSOUND: {int((r > 1).sum())} bounds above a distance found", flush=True)
        if method == "cap" and start == "found" and BARS[name][0] is not None:
            least, limit = BARS[name]
            kept = float(r.median()) >= least and (limit is None or float(t.mean()) <= limit)
            print(f"  bar: median {least}" + (f" at {limit} s" if limit else "") + (": kept" if kept else ": MISSED"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="a file of MNIST with arrays x_test, y_test")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--costly", type=int, default=8, help="images of the CNN and the erf network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks:
        n = min(arguments.images, arguments.costly) if name in COSTLY else arguments.images
        report(name, arguments.mnist, n, arguments.seed)


if __name__ == "__main__":
    main()
