"""Development tasks: `nox` runs the gate, `nox -l` lists every session, `nox -s NAME -- ARGUMENTS` runs one.

Each session installs the project and one of its extras (pyproject.toml) into an environment under `.nox/`.
The constants are literals: tests/site/test_commands.py reads them and compares the README's commands.
"""

import tomllib
from pathlib import Path

import nox

GATE = ("lint", "docs", "tests")  # what `nox` and .ci/run run; last the tests, whose summary ends the output
TESTS = ("pytest", "-n", "2")
DOCTESTS = ("pytest", "-q", "-n", "2", "--doctest-modules", "jaxnn")
SITE = ("sphinx", "-W", "-q", "-b", "html", "docs", "site")
BENCH = ("experiments.benchmarks", "--quick")
MAIN_JOB = ("experiments.back_query",)
# Configurations of JAX: those on their way to being the default, and those that people set. A release of JAX
# ignores flags that it does not know: of the first three, 0.10 has JAX_CUSTOM_VJP3.
FLAGS = (
    "JAX_REMAT3 JAX_CUSTOM_VJP3 JAX_CUSTOM_JVP3",
    "JAX_ENABLE_X64",
    "JAX_DEBUG_NANS",
    "JAX_CHECK_TRACER_LEAKS",
    "JAX_NUMPY_DTYPE_PROMOTION=strict",
)
CORE = ("tests/engine", "tests/attribution", "tests/adapters", "tests/test_integers.py")
EXTRAS = {"tests": "test", "docs": "docs", "peers": "test,peers"}
USER_EXTRAS = ("plot", "rules", "equinox", "haiku", "keras", "experiments")

nox.needs_version = ">=2024.10.9"
nox.options.sessions = GATE
# With uv an environment takes some ten seconds, with pip over a minute: so each session can have its own.
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"  # packages are installed again, which is quick where they are already there
nox.options.error_on_missing_interpreters = True  # a session that cannot run is no success


def _install(session: nox.Session, name: str, *options: str) -> None:
    session.install(*options, "-e", f".[{EXTRAS[name]}]")


def _python(session: nox.Session, module: tuple[str, ...]) -> None:
    session.run("python", "-m", *module, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types, and run the docstring examples."""
    _install(session, "tests")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "-m", *DOCTESTS)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, with warnings as errors, and check its links."""
    _install(session, "docs")
    session.run("python", "-m", *SITE)
    session.run("python", "docs/check.py", "site")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the default test suite."""
    _install(session, "tests")
    _python(session, TESTS)


@nox.session
def long(session: nox.Session) -> None:
    """Run every test, the long ones included."""
    _install(session, "tests")
    _python(session, (*TESTS, "--long"))


@nox.session
def peers(session: nox.Session) -> None:
    """Compare with Captum, Foolbox, lxt, SHAP and zennit on the same weights."""
    _install(session, "peers")
    _python(session, (*TESTS, "tests/peers"))


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark, with less of everything."""
    _install(session, "peers")
    _python(session, BENCH)


def _tests_and_main_job(session: nox.Session, *options: str) -> None:
    session.run("python", "-m", *TESTS, *options, *session.posargs)
    session.run("python", "-m", *MAIN_JOB)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the tests and the main job with the lower bound of each dependency, such as the oldest JAX."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = sum((extras[name] for name in USER_EXTRAS), project["dependencies"])
    constraints = Path(session.create_tmp(), "oldest.txt")
    constraints.write_text(
        "".join(bound.split(",")[0].replace(">=", "==") + "\n" for bound in bounds if ">=" in bound)
    )
    _install(session, "tests", "--constraint", str(constraints))
    # An old release and a new one of what it uses may warn about each other.
    _tests_and_main_job(session, "-W", "ignore::DeprecationWarning")


@nox.session(python="3.13", reuse_venv=False)
def newest(session: nox.Session) -> None:
    """Run the tests and the main job with the newest release of each dependency, such as the newest JAX."""
    _install(session, "tests")
    _tests_and_main_job(session)


@nox.session(python=["3.11", "3.13"])
def flags(session: nox.Session) -> None:
    """Run the core of the tests under each of several configurations of JAX, on an old and on the newest."""
    _install(session, "tests")
    for names in FLAGS:
        settings = (name.partition("=") for name in names.split())
        environment = {name: value or "1" for name, _, value in settings}
        session.run("python", "-m", *TESTS, *CORE, *session.posargs, env=environment)
