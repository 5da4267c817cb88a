"""The house: layers, imports without side effects, and nothing that holds on one machine only."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "deepspeed",
    "wandb",
    "peft",
    "datasets",
    "sentence_transformers",
    "matplotlib",
)
# They define subclasses of these libraries' classes, and are themselves imported where they are used.
SUBCLASSES = {
    "reseed.training.trainer": ("torch", "transformers", "peft"),
    "reseed.training.cpu_attention": ("torch", "transformers"),
    "reseed.training.order": ("torch",),
    "reseed.language.nucleus": ("torch", "transformers"),
    "reseed.models.experts": ("torch", "transformers"),
}
PROBE = '''
"""Import each module in a process of its own, forked from one that has imported nothing of the project."""
import importlib, json, logging, os, sys

def look(name):
    before, handlers, seen = dict(os.environ), list(logging.getLogger().handlers), set(sys.modules)
    try:
        importlib.import_module(name)
        failure = None
    except BaseException as error:
        failure = repr(error)
    return {
        "failure": failure,
        "imported": sorted({module.split(".")[0] for module in set(sys.modules) - seen}),
        "environment": sorted(k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)),
        "logging": logging.getLogger().handlers != handlers,
    }

names, told = json.loads(sys.argv[1]), {}
for name in names:
    if not name.startswith("reseed") and "prefect" not in sys.modules:
        from prefect import flow, task  # the project's own choice for tasks and flows; once, as it takes a second
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, json.dumps(look(name)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told[name] = json.loads(pipe.read())
    os.waitpid(child, 0)
print(json.dumps(told))
'''


def modules() -> list[str]:
    """Every module of the project, the core first."""
    files = [
        path.relative_to(ROOT)
        for package in ("reseed", "tasks", "flows", "infra")
        for path in (ROOT / package).rglob("*.py")
    ]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    return sorted(names, key=lambda name: (not name.startswith("reseed"), name))


def tracked() -> list[Path]:
    """The files of the repository."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("no git checkout, so it is not known which files belong to the repository")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What importing each module does."""
    home, here, prefect = (tmp_path_factory.mktemp(name) for name in ("home", "here", "prefect"))
    script = tmp_path_factory.mktemp("probe") / "probe.py"
    script.write_text(PROBE)
    names = [name for name in modules() if name not in SUBCLASSES]
    free = {
        "HOME": str(home),
        "PREFECT_HOME": str(prefect),  # Prefect makes it when it is imported
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(names)],
        cwd=here,
        env=free,
        capture_output=True,
        text=True,
        timeout=600,  # seconds; 16 alone on the machine
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    told["written"] = sorted(str(path.relative_to(place)) for place in (home, here) for path in place.rglob("*"))
    return told


def test_every_module_can_be_imported_first(imports: dict[str, Any]) -> None:
    """In a fresh process, so that no order of imports is needed."""
    names = [name for name in modules() if name not in SUBCLASSES]
    assert len(names) > 40
    assert {name: imports[name]["failure"] for name in names if imports[name]["failure"]} == {}


def test_import_brings_nothing_heavy(imports: dict[str, Any]) -> None:
    names = [name for name in modules() if name not in SUBCLASSES]
    heavy = {name: sorted(set(imports[name]["imported"]).intersection(HEAVY)) for name in names}
    assert {name: found for name, found in heavy.items() if found} == {}


def test_core_brings_neither_prefect_nor_ray(imports: dict[str, Any]) -> None:
    found = {name: imports[name]["imported"] for name in modules() if name.startswith("reseed") and name in imports}
    assert {name: tops for name, tops in found.items() if {"prefect", "ray"}.intersection(tops)} == {}


def test_import_does_nothing(imports: dict[str, Any]) -> None:
    names = [name for name in modules() if name not in SUBCLASSES]
    assert {name: imports[name]["environment"] for name in names if imports[name]["environment"]} == {}
    assert [name for name in names if imports[name]["logging"]] == []
    assert imports["written"] == []


@cache
def source(name: str) -> str:
    path = ROOT.joinpath(*name.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(SUBCLASSES))
def test_exceptions_are_still_needed_and_imported_late(name: str) -> None:
    """A module that imports a library at its top must subclass one of its classes, and others import it in functions."""
    imported = re.findall(r"^(?:import|from) (\w+)", source(name), re.MULTILINE)
    assert {"torch", "transformers"} & set(imported)
    assert set(imported).intersection(HEAVY) <= set(SUBCLASSES[name])
    base = r"Trainer|TrainerCallback|LogitsProcessor|MixtralForCausalLM|torch\.(utils\.data\.Sampler\[int\]|autograd\.Function)"
    assert re.search(rf"^class \w+\(({base})\):", source(name), re.MULTILINE)
    eager = rf"^(from {re.escape(name)} import|import {re.escape(name)})"
    others = [other for other in modules() if other not in SUBCLASSES]
    assert [other for other in others if re.search(eager, source(other), re.MULTILINE)] == []


def test_no_module_is_named_after_a_package() -> None:
    """A script's folder comes first on the path, and there such a module would hide the package."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    packages = {re.split(r"[\[<>=]", name)[0].strip().lower().replace("-", "_") for name in wanted}
    named = {name for name in modules() if name.rpartition(".")[2] in packages - {"reseed"}}
    assert not named


def test_test_files_have_names_of_their_own() -> None:
    """Without packages in tests/, pytest takes two files of one name for one module."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.fixture(scope="module")
def deployments() -> list[dict[str, Any]]:
    """What prefect.yaml deploys."""
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return found


def texts(value: object) -> list[str]:
    """Every text in a value."""
    if isinstance(value, dict):
        return [text for entry in value.items() for text in texts(list(entry))]
    if isinstance(value, list):
        return [text for entry in value for text in texts(entry)]
    return [value] if isinstance(value, str) else []


def test_deployments_are_of_no_one_machine(deployments: list[dict[str, Any]]) -> None:
    assert {"quickstart", "nightly"} <= {deployment["name"] for deployment in deployments}
    assert [text for text in texts(deployments) if text.startswith(("/", "~")) or str(ROOT) in text] == []


def test_deployments_name_flows_recipes_and_profiles_that_exist(deployments: list[dict[str, Any]]) -> None:
    from prefect import Flow

    from reseed.recipe.profile import load_profile
    from reseed.recipe.reading import load_recipe

    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        given = deployment["parameters"]
        assert flow.validate_parameters(given).keys() >= given.keys()
        assert load_recipe(given["recipe"]).name == given["recipe"]
        load_profile(given["profile"])


def test_schedules_say_their_time_zone(deployments: list[dict[str, Any]]) -> None:
    schedules = [one for deployment in deployments for one in deployment.get("schedules") or []]
    assert schedules
    assert all("cron" in one and one.get("timezone") for one in schedules)


def test_no_file_names_a_place_on_one_machine() -> None:
    folders = "|".join(["work", "root", "home/[a-z]", "Users/[a-z]"])
    absolute = re.compile(rf"(?<![\w.~…*:/}}-])/({folders})/".encode())
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.decode(errors='replace').strip()[:100]}"
        for path in tracked()
        if path.name != "requirements.lock"
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if absolute.search(line)
    ]
    assert lines == []


SAFE = {
    r"Auto\w+\.from_pretrained|SentenceTransformer": "trust_remote_code=False",  # left out, the terminal is asked
    r"torch\.load": "weights_only=True",
}


def test_no_model_brings_code() -> None:
    calls = [
        (f"{path.relative_to(ROOT)}:{node.lineno}", wanted, [ast.unparse(keyword) for keyword in node.keywords])
        for layer in ("flows", "infra", "tasks", "reseed")
        for path in (ROOT / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for name, wanted in SAFE.items()
        if re.fullmatch(name, ast.unparse(node.func))
    ]
    assert len(calls) > 8
    assert [place for place, wanted, given in calls if wanted not in given] == []
