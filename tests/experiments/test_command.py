"""Commands fail in one line, and their usage names them as they are run."""

import os
import subprocess
import sys

import pytest


def run(*words, **environment):
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", *words], capture_output=True, text=True, env=os.environ | environment
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("experiments.back_query", "--epochs", "0"),
            "python -m experiments.back_query: `epochs` must be at least 1",
        ),
        (("experiments.own_image", "nowhere.png"), "No such file or directory: 'nowhere.png'"),
    ],
)
def test_an_error_is_one_line(words, message):
    done = run(*words)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_traceback_on_request():
    done = run("experiments.back_query", "--epochs", "0", JAXNN_TRACEBACK="1")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("name", ["experiments", "experiments.two_digits"])
def test_usage_names_the_command(name):
    assert run(name, "--help").stdout.startswith(f"usage: python -m {name} [-h]")
