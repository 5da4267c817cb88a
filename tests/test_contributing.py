"""What CONTRIBUTING names to run and to read exists, and the hooks and the workflow do what `make check` does."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from reseed.evaluation.answers import blend
from reseed.problems import ProblemModule, load_problem

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "CONTRIBUTING.md", "pyproject.toml", ".pre-commit-config.yaml", ".ci/run", "Makefile")
LINT = re.compile(r"\.venv/bin/([\w-]+)((?: [a-z]+)?)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(target: str) -> str:
    """What make would run for a target, in an environment that is ready."""
    command = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/.ready", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def hooks() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_every_target_that_is_named_can_be_made(name: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ *)make (?:--?[\w-]+ |[A-Z]+=\S+ )*([a-z][\w-]*)", text(name), re.MULTILINE))
    assert "test" in targets
    assert named <= targets


def test_every_file_that_contributing_names_exists() -> None:
    quoted = re.findall(r"`([\w./-]+)`", text("CONTRIBUTING.md"))
    named = [one for one in quoted if "/" in one or one.endswith((".md", ".py", ".toml", ".lock"))]
    assert len(named) > 20
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_the_blend_that_is_shown_blends() -> None:
    (shown,) = re.findall(
        r"^## Add a blend\n.*?^(    def blend.*?)\n\n", text("CONTRIBUTING.md"), re.DOTALL | re.MULTILINE
    )
    without = text("reseed/problems/prompt_recovery.py").replace("def blend(", "def unused(")
    problem = load_problem(ProblemModule("mine", f"{without}\n{textwrap.dedent(shown)}\n"))
    members = [{"row": "Sing."}, {"row": "Sing to the sea."}, {"row": ""}]
    assert blend(problem, members) == {"row": "Sing to the sea."}


def test_check_is_lint_and_every_test_once() -> None:
    made = commands("check")
    assert commands("lint") in made
    assert re.findall(r'pytest -m ("not slow"|slow) ', made) == ['"not slow"', "slow"]


def test_a_commit_is_linted_as_make_lint_does(hooks: list[dict[str, Any]]) -> None:
    hooked = {match.groups() for hook in hooks if (match := LINT.match(hook["entry"]))}
    assert hooked == set(LINT.findall(commands("lint")))
    assert {hook["language"] for hook in hooks} == {"system"}, "the versions are those of requirements.lock"


def test_the_workflow_runs_what_ci_runs_on_every_python() -> None:
    job = yaml.safe_load(text(".github/workflows/check.yml"))["jobs"]["check"]
    supported = SpecifierSet(tomllib.loads(text("pyproject.toml"))["project"]["requires-python"])
    wanted = [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}" in supported]
    assert job["strategy"]["matrix"]["python"] == wanted
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
