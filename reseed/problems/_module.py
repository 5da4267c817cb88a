"""Where a problem's code comes from, and how its text becomes a module in every process that needs it."""

from __future__ import annotations

import importlib.util
import linecache
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from reseed.files import digest
from reseed.mistakes import first_line
from reseed.records import ReseedError

_running = threading.RLock()
INSIDE = "reseed_problem_"  # the prefix of problems' names in `sys.modules`


@dataclass(frozen=True)
class ProblemModule:
    """A problem's name and, unless it ships with reseed, its module's text.

    The text is read once, with the recipe, and travels to the workers: what is in the keys is what runs on every node.
    """

    name: str
    source: str | None = field(default=None, repr=False)


def find_problem(name: str, folder: Path | None = None) -> ProblemModule:
    """The problem of that name: a file in the recipe's folder, a module by its dotted name, else a shipped one.

    A name that is none of them is returned too: `load_problem` refuses it.
    """
    path = folder / file_of(name) if folder is not None and re.fullmatch(r"[\w-]+", name) else None
    if path is None or not path.is_file():
        path = dotted_file(name) if re.fullmatch(r"\w+(\.\w+)+", name) else None
    if path is None:
        return ProblemModule(name)
    try:
        return ProblemModule(name, path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ReseedError(f"problem '{name}': cannot read {path.name} ({error}); save it as UTF-8 text") from error


def dotted_file(name: str) -> Path:
    """The file of a module that Python finds by its dotted name."""
    try:
        spec = importlib.util.find_spec(name)
        reason = "" if spec is not None else "there is no such module"
    except Exception as error:  # from its packages, whose own code runs
        spec, reason = None, f"{type(error).__name__}: {first_line(error)}"
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        cure = f"write '{name[:-3]}' for a file beside the recipe" if name.endswith(".py") else "is it on PYTHONPATH?"
        raise ReseedError(f"problem '{name}': cannot import {name} ({reason or 'it is not a Python file'}); {cure}")
    return Path(spec.origin)


def problem_identity(module: ProblemModule) -> str:
    """What a key holds of a problem: its name, and the digest of its module unless it ships with reseed."""
    return module.name if module.source is None else f"{module.name}@{digest(module.source, 16)}"


def run_module(module: ProblemModule) -> ModuleType:
    """Run the module's text, once in each process. What it imports must be installed wherever it runs."""
    assert module.source is not None
    inside, file = f"{INSIDE}{digest([module.name, module.source], 16)}", file_of(module.name)
    with _running:  # else a thread could find another's half-made module
        if inside in sys.modules:
            return sys.modules[inside]
        code = ModuleType(inside)
        code.__file__, code.__package__ = file, module.name.rpartition(".")[0]
        linecache.cache[file] = (len(module.source), None, module.source.splitlines(True), file)  # for tracebacks
        sys.modules[inside] = code  # dataclasses and pydantic look for their module there
        try:
            exec(compile(module.source, file, "exec", dont_inherit=True), code.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[inside]
            raise_failed_import(module.name, file, error)
    return code


@contextmanager
def portable_errors() -> Iterator[None]:
    """Turn errors of a problem's own classes into ReseedError: other processes could not import the class."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(INSIDE):
            raise
        code = sys.modules[type(error).__module__]
        file = str(code.__file__)
        raise ReseedError(f"problem '{file.removesuffix('.py')}': {error_with_line(error, file)}") from None


def file_of(name: str) -> str:
    """A problem's file name, with underscores for the dashes of its name."""
    return f"{name.rpartition('.')[2].replace('-', '_')}.py"


def raise_failed_import(name: str, file: str, error: BaseException) -> NoReturn:
    """Raise ReseedError for a module that cannot be run, with the line and the cure."""
    cure = "mend it"
    if isinstance(error, ImportError):
        cure = "install it here and wherever Ray runs; a problem is one file, so what lies beside it is not found"
    raise ReseedError(f"problem '{name}': {error_with_line(error, file)}; {cure}") from error


def error_with_line(error: BaseException, file: str) -> str:
    """An error as text, with its line in the problem's file if it happened there."""
    lines = [error.lineno] if isinstance(error, SyntaxError) and error.filename == file else []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.rpartition("/")[2] == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else first_line(error)}"
    return f"{file}, line {lines[-1]}: {what}" if lines else what
