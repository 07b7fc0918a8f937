"""The memory of a map: `python -m tests.helpers.map_memory COUNT [FOLDER]` prints JSON."""

import json
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
from jax.tree_util import Partial

import jaxnn


def resident():
    """The resident memory of this process in MB, files that it has mapped included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


def explain(network, image):
    return jaxnn.attribution.saliency(network, image / 255, 1)


def main(count, folder=None):
    """Map images of 784 bytes to float32, in arrays or a folder, and sample the memory all the while."""
    network = jaxnn.init(jax.random.key(0), (784, 32, 10))
    images = np.random.default_rng(0).integers(0, 256, (int(count), 784), np.uint8)
    fn = Partial(explain, network)
    jaxnn.map_examples(fn, images[:1000], batch_size=500)  # compiled, and with the pools of JAX
    start, samples, ended = resident(), [], threading.Event()

    def sample():
        while not ended.wait(0.02):
            samples.append(resident())

    thread = threading.Thread(target=sample)
    thread.start()
    begun = time.perf_counter()
    maps = jaxnn.map_examples(fn, images, batch_size=500, out=folder)
    seconds = time.perf_counter() - begun
    ended.set()
    thread.join()
    report = {"start": start, "growth": max(samples) - start, "rate": len(images) / seconds}
    print(json.dumps(report | {"shape": maps.shape, "end": float(maps[-1].sum())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
