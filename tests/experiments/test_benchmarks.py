"""The benchmarks: measurements, tables, and the page that they are written to."""

import importlib
import json
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from experiments.benchmarks import _against, _page, _summary, compiling, growth
from experiments.benchmarks.__main__ import _parts
from experiments.benchmarks._case import Case, run
from experiments.benchmarks._floor import Rates, Work, floor

pytestmark = pytest.mark.optimized

SLEEP = partial(partial, time.sleep)  # a build: it gives a call


@pytest.fixture(scope="module")
def row():
    builds = {"jaxnn, short": partial(SLEEP, 0.01), "jaxnn, long": partial(SLEEP, 0.04)}
    builds |= {"Peer, a": partial(SLEEP, 0.03), "Peer, b": partial(SLEEP, 0.06)}
    return run(Case("Sleeping", "a moment", builds, Work(1e6)), rounds=2)


@pytest.mark.long
def test_the_best_settings_are_compared(row):
    ours, peer = row["libraries"]["jaxnn"], row["libraries"]["Peer"]
    assert (ours["setting"], peer["setting"]) == ("jaxnn, short", "Peer, a")
    low, middle, high = peer["times_ours"]
    assert low <= middle <= high
    assert middle > 1
    assert ours["times_ours"] == (1, 1, 1)
    assert len(row["settings"]["Peer, b"]["rounds"]) == 2
    assert row["floor"] > 0


@pytest.mark.long
def test_finalists_are_the_quickest_of_each_library():
    builds = {
        f"{library}, {ms}": partial(SLEEP, ms / 1000) for library in ("jaxnn", "Peer") for ms in (1, 30)
    }
    found = run(Case("Sleeping", "a moment", builds, Work(1.0), finalists=1), rounds=1)
    assert set(found["settings"]) == {"jaxnn, 1", "Peer, 1"}


def test_the_floor_is_the_longer_of_arithmetic_and_traffic():
    rates = Rates(operations=100.0, traffic=10.0)
    assert floor(Work(200.0), rates) == 2
    assert floor(Work(200.0, 50.0), rates) == 5


@pytest.mark.long
def test_tables_are_written_between_their_marks(tmp_path, row):
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- begin: Sleeping -->\nold\n<!-- end: Sleeping -->\nafter\n")
    missing = _page.fill(page, _page.tables([row]) | {"Other": "x"})
    assert missing == ["Other"]
    text = page.read_text()
    assert text.startswith("Before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    head, rule, line = [line for line in text.splitlines() if line.startswith("|")]
    assert head.split("|")[2:4] == [" jaxnn ", " Peer / jaxnn "]
    assert line.count("|") == head.count("|") == rule.count("|")
    assert f" {_page._time(row['libraries']['jaxnn']['seconds'])} " in line
    _page.fill(page, _page.tables([row]))
    assert page.read_text() == text


@pytest.mark.long
def test_parts_measured_on_an_accelerator_have_marks_of_their_own(tmp_path, row):
    for name, accelerated in (("a", False), ("b", True)):
        record = {
            "machine": f"machine {name}",
            "accelerated": accelerated,
            "rows": [row],
            "parts": {name: "x"},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    suffix = " on an accelerator"
    assert set(_parts(tmp_path)) == {
        "Sleeping", "Machine", "a", f"Sleeping{suffix}", f"Machine{suffix}", f"b{suffix}"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0123, "0.012"), (1.24, "1.2"), (12.4, "12"), (1234.5, "1234"), (0, "0")]
)
def test_numbers_have_two_digits(number, shown):
    assert _page._short(number) == shown


def test_exponents_are_fit_to_the_larger_half():
    counts = [1, 2, 4, 8, 16, 32]
    assert growth.exponent(counts, [9, 9, 9, 2 * 8**1.5, 2 * 16**1.5, 2 * 32**1.5]) == pytest.approx(1.5)


def test_every_method_of_a_network_is_timed():
    from jaxnn import attacks, attribution

    untimed = {
        "grad_cam",
        "guided_grad_cam",
        "permutation_importance",
        "completeness_gap",
    }  # no dense one, or sets
    untimed |= {
        "universal",
        "robust_accuracy",
        "minimal_norm",
        "strongest",
        "under_attack",
    }  # built from others
    untimed |= {"misclassified", "classified_as", "confident", "to_pandas", "to_shap", "to_xarray"}
    untimed |= {"blocks", "superpixels"}  # groups
    for family in (attribution, attacks):
        public = {name for name, value in vars(family).items() if callable(value) and name[0].islower()}
        assert public - untimed <= set(compiling.methods())


def test_a_call_is_timed_first_and_later():
    first, later = compiling.first_and_later("saliency")
    assert first > later > 0
    assert np.isfinite(first)


# --- two revisions


def test_a_change_is_one_if_every_round_shows_it():
    verdicts = [
        _against.Change("", "", *ratios).verdict
        for ratios in ((1.1, 1.2, 1.3), (0.8, 1.2, 1.3), (0.5, 0.6, 0.9))
    ]
    assert verdicts == ["slower", "no change", "faster"]


def test_a_revision_is_checked_out_and_removed(tmp_path):
    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *names, *arguments], check=True, capture_output=True)  # noqa: S603, S607

    git("init")
    for text in ("first", "second"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "-m", text)
    with _against.checked_out("HEAD~1", tmp_path) as folder:
        assert (folder / "file").read_text() == "first"
    assert not folder.exists()
    assert (tmp_path / "file").read_text() == "second"
    with (
        pytest.raises(ValueError, match="`against` must be a revision of .*; got 'none'"),
        _against.checked_out("none", tmp_path),
    ):
        pass


@pytest.mark.long
def test_each_revision_runs_its_own_code(tmp_path, monkeypatch):
    for name, seconds in (("now", 0.02), ("before", 0.2)):
        (tmp_path / name).mkdir()
        code = f"import functools, time\ndef build():\n    return functools.partial(time.sleep, {seconds})\n"
        (tmp_path / name / "timed_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "now")
    build = importlib.import_module("timed_module").build
    case = Case("Sleeping", "a moment", {"jaxnn": build, "Peer": build}, Work(1.0))
    (change,) = _against.changes_of(case, tmp_path / "before", rounds=2)
    assert change.verdict == "faster"
    assert 0.05 < change.middle < 0.3
    assert str(tmp_path / "before") not in sys.path
    assert _against.table_of([change], "main").row_count == 1


def test_the_summary_shows_the_fastest_peer_of_each_row():
    page = """
<!-- begin: Attributions -->

|  | jaxnn | Slow / jaxnn | Fast / jaxnn | floor |
|---|---|---|---|---|
| `saliency`, dense, 2 examples | 1 ms | **9.0** (8 to 10) | **3.0** (2 to 4) | 1 ms |
| `lime`, convolutional, 2 examples | 1 ms |  | **0.5** (0.4 to 0.6) | 1 ms |
| `rise`, dense, 2 examples | 1 ms |  |  | 1 ms |

<!-- end: Attributions -->
<!-- begin: Common architectures -->

|  | jaxnn | plain JAX / jaxnn | Captum / jaxnn | floor |
|---|---|---|---|---|
| GPT of 12 blocks, 256 tokens, `saliency`, one example | 1 s | **0.1** (0 to 1) | **0.8** (0 to 1) | 1 s |

<!-- end: Common architectures -->
"""
    groups = _summary.groups_of(page)
    assert groups == {
        "attributions, dense": {"`saliency`, dense, 2 examples": 3.0},
        "attributions, convolutional": {"`lime`, convolutional, 2 examples": 0.5},
        "GPT of 12 blocks, 256 tokens": {"GPT of 12 blocks, 256 tokens, `saliency`, one example": 0.8},
    }
    figure = _summary.figure_of(groups)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == list(groups)
