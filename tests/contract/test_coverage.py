"""Every public function has a row in the contract, or a reason why not."""

import inspect

import jaxnn
from tests.contract.rows import FULL, INDIRECT, ROWS

FAMILIES = ("attacks", "attribution", "datasets", "dreaming", "losses", "plot", "quality", "rules", "weights")

# Public functions without a row, each with the reason, and the tests that it has instead.
HOST = "runs on the host, and its result depends on values: tests/rules"
FIGURE = "draws on matplotlib Axes: tests/plot"
NO_ARRAY = "takes no array that a transformation could trace"
EXEMPT = {
    "attribution.blocks": "returns integers of a shape alone: tests/attribution/test_groups.py",
    "attribution.superpixels": "computed on the host, by scikit-image: tests/attribution/test_groups.py",
    "attribution.to_pandas": "returns a DataFrame: tests/attribution/test_export.py",
    "attribution.to_shap": "returns an object of shap: tests/attribution/test_export.py",
    "attribution.to_xarray": "returns a DataArray: tests/attribution/test_export.py",
    "explain": "chooses methods by values, and returns text and pictures: tests/test_explain.py",
    "from_numpy": "calls back to the host, and has no derivative: tests/adapters/test_numpy.py",
    "save": "writes a file: tests/test_serialization.py",
    "load": "reads a file: tests/test_serialization.py",
    "datasets.load": "reads a data set: tests/test_datasets.py",
    "datasets.point_set": NO_ARRAY + ": tests/test_point_sets.py",
    "datasets.encode_images": "takes integers, which have no gradient: tests/test_datasets.py",
    "dreaming.diversity": "takes a batch under vmap, whose axis it names: tests/dreaming",
    "dreaming.standard_transforms": "returns transforms; each of them has a row",
    "summary": "counts from shapes, and computes nothing: tests/test_summary.py",
    "prior": "fitted on the host, by k-means of scikit-learn: tests/backquery/test_prior.py",
    "quality.parameter_layers": "returns names: tests/quality/test_randomize.py",
    "quality.report": "returns text and pictures, on the host: tests/quality/test_report.py",
    "rules.anchor": HOST,
    "rules.distill_tree": HOST,
    "rules.linear_regions": HOST,
    "rules.rule_list": HOST,
    "rules.trepan": HOST,
}


def public_functions():
    """The qualified name of each public function: `query`, `attacks.pgd`."""
    for family, module in (("", jaxnn), *((name, getattr(jaxnn, name)) for name in FAMILIES)):
        for name in dir(module):
            value = getattr(module, name)
            own = getattr(value, "__module__", "").startswith("jaxnn")
            if not name.startswith("_") and own and callable(value) and not inspect.isclass(value):
                yield f"{family}.{name}" if family else name


def rows():
    """The names that rows are called after."""
    return {name.split()[0] for name in ROWS}


def test_every_public_function_has_a_row_or_a_reason():
    exempt = EXEMPT | {name: FIGURE for name in public_functions() if name.startswith("plot.")}
    bare = [name.rpartition(".")[2] for name in public_functions()]
    missing = [
        name
        for name, last in zip(public_functions(), bare, strict=True)
        # A name of two families is the attack's; the other's row is called after both: "dreaming.blur".
        if not {name, last if bare.count(last) == 1 or name.startswith("attacks.") else name} & rows()
        and name not in exempt
    ]
    assert not missing, f"add a row to tests/contract for {missing}, or a reason to EXEMPT"


def test_no_exemption_is_stale():
    functions = set(public_functions())
    assert set(EXEMPT) <= functions
    assert not {name for name in EXEMPT if name in rows()}


def test_the_rows_that_are_named_exist():
    assert set(FULL) <= set(ROWS)
    assert set(INDIRECT) <= set(ROWS)
