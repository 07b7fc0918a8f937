"""The README and CONTRIBUTING.md show the commands of noxfile.py, and .ci/run runs its default sessions."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text())
# nox is no dependency of the tests: the constants of its file are read, not imported.
CONSTANTS = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in NOXFILE.body
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
}
SESSIONS = {
    node.name: ast.get_docstring(node)
    for node in NOXFILE.body
    if isinstance(node, ast.FunctionDef) and node.decorator_list
}
INSTALL_NOX = 'python3 -m venv .nox/runner && .nox/runner/bin/pip install -q "nox[uv]"'


def command(mark):
    """The only line of the code block below a mark of the README."""
    blocks = re.findall(rf"<!-- {mark} -->\n```bash\n(.*)\n```\n", README)
    assert len(blocks) == 1, mark
    return blocks[0]


def in_environment(extra, module, editable="-e "):
    install = f'python3 -m venv .venv && .venv/bin/pip install -q {editable}".[{extra}]"'
    return f"{install} && .venv/bin/python -m {' '.join(module)}"


@pytest.mark.parametrize(
    ("mark", "session", "constant"), [("tests", "tests", "TESTS"), ("site", "docs", "SITE")]
)
def test_the_readme_runs_what_the_session_runs(mark, session, constant):
    assert command(mark) == in_environment(CONSTANTS["EXTRAS"][session], CONSTANTS[constant])


def test_the_readme_and_ci_run_the_default_sessions():
    assert command("gate") == f"{INSTALL_NOX} && .nox/runner/bin/nox"
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-2:] == [INSTALL_NOX, ".nox/runner/bin/nox"]
    assert (
        tuple(SESSIONS)[: len(CONSTANTS["GATE"])] == CONSTANTS["GATE"]
    )  # they run in the order of their definition
    assert set(CONSTANTS["GATE"]) == {"lint", "docs", "tests"}


def test_the_main_job_installs_what_it_imports():
    assert command("main job") == in_environment("experiments", CONSTANTS["MAIN_JOB"], editable="")


def test_every_session_is_described_where_contributors_look():
    assert all(SESSIONS.values())
    assert re.findall(r"^\| `nox -s (\w+)` \|", GUIDE, re.MULTILINE) == list(SESSIONS)


@pytest.mark.parametrize("text", [README, GUIDE], ids=["README", "CONTRIBUTING"])
def test_every_extra_and_every_session_that_is_named_exists(text):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for group in re.findall(r"\"\.\[([\w,]+)\]\"", text) for extra in group.split(",")}
    assert named
    assert named <= extras.keys()
    assert set(re.findall(r"nox -s (\w+)", text)) <= SESSIONS.keys()


@pytest.mark.parametrize("session", CONSTANTS["EXTRAS"])
def test_the_extras_of_a_session_exist(session):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(CONSTANTS["EXTRAS"][session].split(",")) <= extras.keys()
    assert session in SESSIONS


def test_workflows_run_sessions_that_exist():
    text = "\n".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    named = set(re.findall(r"nox -s ([a-z]\w*)", text)) | set(re.findall(r"session: (\w+)", text))
    lists = re.findall(r"session: \[([\w, ]+)\]", text)
    assert {*named, *(name for part in lists for name in part.split(", "))} <= SESSIONS.keys()
    assert lists
