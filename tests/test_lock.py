"""The lock is installed without resolving, so it must be whole for every Python that the README names."""

from __future__ import annotations

import runpy
import time
import tomllib
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from threading import Thread

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PLACES = [  # markers ask for a patch release only early in a series
    *((version, "x86_64") for version in ("3.11.0", "3.11.2", "3.11.3", "3.11.4", "3.11.14", "3.12.0", "3.12.12")),
    ("3.11.2", "aarch64"),
    ("3.12.12", "aarch64"),
]


def environment(version: str, machine: str) -> dict[str, str]:
    given: dict[str, str] = dict(default_environment())  # type: ignore[arg-type]
    return given | {
        "python_full_version": version,
        "implementation_version": version,
        "python_version": version.rpartition(".")[0],
        "platform_machine": machine,
    }


@cache
def needs(package: str) -> tuple[Requirement, ...]:
    """What an installed package requires; nothing of one that only another Python installs."""
    try:
        return tuple(Requirement(text) for text in requires(package) or [])
    except PackageNotFoundError:
        return ()


def project() -> list[Requirement]:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        Requirement(text) for part in (about["dependencies"], *about["optional-dependencies"].values()) for text in part
    ]


def missing(lock: dict[str, Requirement], given: dict[str, str]) -> list[str]:
    """What is required in an environment, by the project or by what it requires, and not in the lock as wanted."""

    def holds(requirement: Requirement, extras: set[str]) -> bool:
        marker = requirement.marker
        return marker is None or any(marker.evaluate(given | {"extra": extra}) for extra in extras | {""})

    waiting, seen, wrong = [(one, "the project") for one in project()], set(), set()
    while waiting:
        wanted, by = waiting.pop()
        name = canonicalize_name(wanted.name)
        pinned = lock.get(name)
        if pinned is None or not holds(pinned, set()):
            wrong.add(f"{name}, which {by} requires")
        elif not wanted.specifier.contains(str(pinned.specifier).removeprefix("=="), prereleases=True):
            wrong.add(f"{pinned}, of which {by} wants {wanted.specifier}")
        if (name, frozenset(wanted.extras)) not in seen:
            seen.add((name, frozenset(wanted.extras)))
            waiting += [(one, wanted.name) for one in needs(wanted.name) if holds(one, wanted.extras)]
    return sorted(wrong)


@pytest.fixture(scope="module")
def lock() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def test_the_lock_is_whole_for_every_python(lock: dict[str, Requirement]) -> None:
    told = {
        f"{version} {machine}": wrong
        for version, machine in PLACES
        if (wrong := missing(lock, environment(version, machine)))
    }
    assert told == {}


def test_what_is_not_in_the_lock_is_reported(lock: dict[str, Requirement]) -> None:
    del lock["async-timeout"]
    assert missing(lock, environment("3.11.2", "x86_64")) == ["async-timeout, which redis requires"]
    assert missing(lock, environment("3.11.3", "x86_64")) == []


def test_torch_comes_from_its_cpu_index_where_that_answers_and_no_gpu_is(tmp_path: Path) -> None:
    option = runpy.run_path(str(ROOT / "infra" / "torch_index.py"))["option"]
    (tmp_path / "torch").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    index = f"http://127.0.0.1:{server.server_address[1]}"
    assert option(index, gpu=False) == f"--extra-index-url {index}"
    assert option(f"{index}/none", gpu=False) == ""
    assert option(index, gpu=True) == ""
    server.shutdown()
    server.server_close()
    started = time.monotonic()
    assert option(index, gpu=False) == "", "the ordinary index does"
    assert time.monotonic() - started < 6
