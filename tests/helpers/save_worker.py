"""Save models to one file, one after the other, until killed; see `forked`."""

import itertools

import numpy as np

import jaxnn
from tests.helpers.forked import serve


def main(path: str) -> None:
    for number in itertools.count():
        jaxnn.save(path, {"w": np.full(300_000, number, np.float32)})


if __name__ == "__main__":
    serve(main)
