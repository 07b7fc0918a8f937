"""Which rules does a network follow, in words that a person can check?

Three networks are described by rules. The first classifies tumors as malignant or benign by 30 named
measurements: trees and a rule list imitate it in the units of the data, and anchors name the few measurements
that suffice for single patients. Their fidelity to the network is measured over several splits, on patients
used for neither, also when the rules are fit to a tenth of the data. The second classifies points of a plane
and is decomposed into its linear regions, an exact tree. The third classifies digits, and a tree queries the
ink in sixteen blocks of the image: how much of the prediction do so few features determine?
"""

from pathlib import Path

import jax

from experiments._common.command import run_command
from experiments._common.digits import DataName
from experiments._common.options import check_at_least, make_folder
from experiments._common.results import save_results
from experiments._parts.rules_digits import describe_digits
from experiments._parts.rules_plane import PointsName, describe_plane
from experiments._parts.rules_tumors import describe_tumors


def main(
    data: DataName = "mnist-5k",
    splits: int = 10,
    points: PointsName = "circles",
    epochs: int = 10,
    seed: int = 0,
    output: Path = Path("results/rules"),
) -> None:
    """Train three networks and extract rules from them.

    Args:
        data: the digits; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        splits: number of splits of the patients into training and test patients.
        points: the points of the plane.
        epochs: number of passes over the digits.
        seed: of the splits, the weights, the order and the samples.
        output: the folder for pictures and numbers.
    """
    check_at_least("splits", splits, 1)
    check_at_least("epochs", epochs, 1)
    make_folder(output)
    patient_key, plane_key, digit_key = jax.random.split(jax.random.key(seed), 3)
    parts = [
        describe_tumors(patient_key, splits),
        describe_plane(plane_key, points),
        describe_digits(digit_key, data, epochs),
    ]
    save_results(
        output,
        settings={"data": data, "splits": splits, "points": points, "epochs": epochs, "seed": seed},
        tables=[table for part in parts for table in part.tables],
        figures={name: figure for part in parts for name, figure in part.figures.items()},
        metrics={name: value for part in parts for name, value in part.metrics.items()},
    )


if __name__ == "__main__":
    run_command(main)
