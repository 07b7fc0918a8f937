"""The parts of the library rest on each other as docs/engine.md draws them."""

import ast
from pathlib import Path

import jaxnn

PACKAGE = Path(jaxnn.__file__).parent
# From the ground up; each part by its files and folders. The parts of the ground may use each other.
FLOORS = [
    {
        "ground": "_activation _affine _checks _chunks _flat _graph _jaxpr _loops _planes _primitives "
        "_progress _recognize _sharding _shares _shift datasets losses plot _plot_attribution _plot_maps "
        "_plot_parts _plot_rules"
    },
    {"the model and its target": "_model"},
    {"names": "_rewrite", "map_examples": "_map", "parts of dreams": "dreaming"},
    {
        "Network": "_network",
        "adapters": "_adapters _adapter_parts",
        "dream": "_dream _dream_plan",
        "attribution": "attribution",
        "attacks": "attacks",
        "rules": "rules",
    },
    {"backquery": "_backquery", "weights": "weights", "save, load": "_checkpoint"},
    {"training": "_train _train_checks _train_data _train_steps _history _resume"},
]
PLACES = {
    name: (floor, part)
    for floor, parts in enumerate(FLOORS)
    for part, names in parts.items()
    for name in names.split()
}


def imported(path):
    """The parts of the library that a file imports, by the names of their files or folders."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("jaxnn."))


def test_each_part_rests_on_those_below_it():
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in files} == set(PLACES)
    for path in files:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        floor, part = PLACES[own]
        for name in imported(path):
            below, other = PLACES[name]
            assert below < floor or other == part, f"{path.name} imports {name}"
