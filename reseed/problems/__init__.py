"""What is being solved. A problem is a module of plain functions: rows in, text for the models, scores out.

The files here that begin with a letter are the shipped problems; a dash in a problem's name is an underscore in the file's.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from reseed.mistakes import nearest
from reseed.problems._complete import complete
from reseed.problems._dry_call import INVENTED, dry_call
from reseed.problems._module import ProblemModule, file_of, find_problem, portable_errors, problem_identity, run_module
from reseed.problems._protocol import Blends, Essentials, Generates, Problem, Shortens
from reseed.records import ReseedError

if TYPE_CHECKING:
    from reseed.problems._protocol import Embed

__all__ = [
    "INVENTED",
    "Blends",
    "Embed",
    "Essentials",
    "Generates",
    "Problem",
    "ProblemModule",
    "Shortens",
    "check_known",
    "dry_call",
    "find_problem",
    "load_problem",
    "portable_errors",
    "problem_identity",
]


def load_problem(problem: ProblemModule | str) -> Problem:
    """The problem, with defaults for what its module leaves out. Raises ReseedError with all mistakes at once."""
    module = find_problem(problem) if isinstance(problem, str) else problem
    if module.source is not None:
        code = run_module(module)
        return complete(module.name, getattr(code, "PROBLEM", code))
    check_known(module)
    return complete(module.name, importlib.import_module(f"{__name__}.{module.name.replace('-', '_')}"))


def check_known(module: ProblemModule) -> None:
    """Refuse a name that is neither a module's nor that of a problem that ships."""
    shipped = sorted(path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[a-z]*.py"))
    if module.source is None and module.name not in shipped:
        raise ReseedError(
            f"problem '{module.name}': unknown{nearest(module.name, shipped)}; there is {', '.join(shipped)}, "
            f"or write {file_of(module.name or 'NAME')} beside the recipe, or give a module's dotted name"
        )
