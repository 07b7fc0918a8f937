"""Every public function is named in each place that a reader looks for it: CONTRIBUTING.md lists them."""

import importlib
import importlib.util
import inspect
import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import jaxnn

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("names", ROOT / "docs" / "names.py")
names = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(names)

REFERENCE = {  # the page of each family; `jaxnn` itself is that of the names at the top
    "jaxnn": "core",
    "attacks": "attacks",
    "attribution": "attribution",
    "datasets": "data",
    "dreaming": "dreaming",
    "losses": "data",
    "plot": "plot",
    "quality": "quality",
    "rules": "rules",
    "weights": "weights",
}
GUIDES = {
    "attacks": "attacks",
    "attribution": "attribution",
    "dreaming": "dreams",
    "quality": "quality",
    "rules": "rules",
}
CHOSEN = ("attacks", "attribution", "quality", "rules")  # families of explanation methods
FOLDERS = {
    "attacks": "attacks",
    "attribution": "attribution",
    "dreaming": "dreaming",
    "plot": "plot",
    "quality": "quality",
    "rules": "rules",
}

# Functions that docs/choosing.md need not name, and why.
NOT_CHOSEN = {
    "attacks.bim": "pgd without the random start; docs/attacks.md compares them",
    "attacks.blur": "a baseline that knows nothing of the model",
    "attacks.classified_as": "a criterion, an argument of the attacks",
    "attacks.confident": "a criterion, an argument of the attacks",
    "attacks.contrast": "a baseline that knows nothing of the model",
    "attacks.fgsm": "one step of pgd; docs/attacks.md compares them",
    "attacks.minimal_norm": "the best of several attacks, each of which has a row",
    "attacks.misclassified": "a criterion, an argument of the attacks",
    "attacks.momentum_pgd": "a variant of pgd; docs/attacks.md compares them",
    "attacks.noise": "a baseline that knows nothing of the model",
    "attacks.under_attack": "a loss for training, no question about a model",
    "attribution.blocks": "groups, an argument of the methods",
    "attribution.superpixels": "groups, an argument of the methods",
    "attribution.deep_lift_shap": "deep_lift averaged over baselines",
    "attribution.internal_influence": "layer_conductance without the layer's own derivative",
    "attribution.layer_activation": "capture of one layer",
    "attribution.layer_gradient_x_activation": "input_x_gradient at a named layer",
    "attribution.layer_integrated_gradients": "integrated_gradients at a named layer",
    "attribution.neuron_gradient": "saliency of a hidden unit",
    "attribution.to_pandas": "attributions in pandas, no method",
    "attribution.to_shap": "attributions in shap, no method",
    "attribution.to_xarray": "attributions in xarray, no method",
    "attribution.var_grad": "the variance of what smooth_grad averages",
    "quality.normalize": "an operation on a map, no question about it",
    "quality.parameter_layers": "names for randomize_parameters",
    "quality.randomize_parameters": "a part of parameter_randomization, for a test of one's own",
    "quality.smoothed": "a variant of a method, for parameter_randomization",
    "rules.linear_regions": "linear_region for every region of two inputs",
}
# Functions that the guide of their family need not name, and why.
NOT_IN_GUIDE = {"attribution.completeness_gap": "checks the sum of a method, as docs/choosing.md explains"}


def public_functions():
    """`family.name` for each public function, `jaxnn.name` for those at the top."""
    for path in names.public_names(jaxnn):
        parts = path.split(".")
        family = parts[1] if len(parts) > 2 and parts[1] in REFERENCE else "jaxnn"
        if len(parts) != (2 if family == "jaxnn" else 3):
            continue  # a method of a class
        value = getattr(importlib.import_module(path.rpartition(".")[0]), parts[-1])
        if callable(value) and not isinstance(value, type):
            yield f"{family}.{parts[-1]}"


FUNCTIONS = sorted(public_functions())


@cache
def words(path):
    """The words in the code spans and code blocks of a page; `layer_*` stands for all that begin so."""
    text = (ROOT / path).read_text()
    spans = re.findall(r"^```.*?\n(.*?)^```$|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL)
    return {word for pair in spans for code in pair for word in re.findall(r"[\w*]+", code)}


@cache
def words_of_tests(folder):
    """The words in the tests of a family and in the comparisons with other libraries."""
    paths = {*(ROOT / "tests" / folder).rglob("*.py"), *(ROOT / "tests" / "peers").rglob("*.py")}
    return {word for path in paths - {Path(__file__)} for word in re.findall(r"\w+", path.read_text())}


def names_it(path, name):
    return any(fnmatch(name, word) for word in words(path) if word != "*")


def missing_sections(function):
    """What the docstring of a public function lacks: linters pass over the private modules they are in."""
    family, _, name = function.partition(".")
    value = getattr(jaxnn if family == "jaxnn" else getattr(jaxnn, family), name, None)
    if value is None:
        return
    text, signature = inspect.getdoc(value) or "", inspect.signature(value)
    sections = ["Example:"] if signature.return_annotation is None else ["Returns:", "Example:"]
    for section in ["Args:", *sections] if signature.parameters else sections:
        if f"\n\n{section}\n" not in text:
            yield f"its docstring: a section `{section}`"
    for parameter in signature.parameters:
        if not re.search(rf"^    \*{{0,2}}{parameter}: ", text, re.MULTILINE):
            yield f"its docstring: `{parameter}` under `Args:`"


def missing_places(function):
    """Where a public function is not named, in words that say what to add."""
    yield from missing_sections(function)
    family, _, name = function.partition(".")
    reference = f"docs/reference/{REFERENCE[family]}.md"
    if not re.search(rf"^\.\. autofunction:: {name}$", (ROOT / reference).read_text(), re.MULTILINE):
        yield f"{reference}: a line `.. autofunction:: {name}`"
    if family in GUIDES and function not in NOT_IN_GUIDE and not names_it(f"docs/{GUIDES[family]}.md", name):
        yield f"docs/{GUIDES[family]}.md: `{name}` in the table of the family's functions"
    if family in CHOSEN and function not in NOT_CHOSEN and not names_it("docs/choosing.md", name):
        yield f"docs/choosing.md: a row with `{name}`, or a reason in NOT_CHOSEN of this test"
    if not names_it("CHANGELOG.md", name):
        yield f"CHANGELOG.md: `{name}` under Unreleased"
    folder = FOLDERS.get(family, ".")
    if name not in words_of_tests(folder):
        yield f"tests/{folder}: a test of `{name}`"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_public_function_is_named_in_every_place(function):
    missing = list(missing_places(function))
    assert not missing, "\n  ".join([f"{function} lacks {len(missing)} of its places:", *missing])


def test_there_are_functions_of_every_family():
    assert {function.partition(".")[0] for function in FUNCTIONS} == REFERENCE.keys()


@pytest.mark.parametrize("function", [*NOT_CHOSEN, *NOT_IN_GUIDE])
def test_only_functions_that_exist_are_left_out(function):
    assert function in FUNCTIONS


def test_all_missing_places_of_a_function_are_named_at_once():
    missing = " ".join(missing_places("attribution.no_such_method"))
    pages = ("docs/reference/attribution.md", "docs/attribution.md", "docs/choosing.md", "CHANGELOG.md")
    assert all(page in missing for page in (*pages, "tests/attribution"))
