"""What planning says of a problem, before anything is trained: also of the one that docs/problems.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from plain_step import plain_step

from reseed.data.readers import read_records
from reseed.evaluation.scoring import Scorer
from reseed.line import Line, plan_line
from reseed.problems import ProblemModule, load_problem
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.recipe.recipe import Recipe
from reseed.records import ReseedError
from reseed.rehearsal import first_records
from reseed.rehearsal import rehearse as rehearse_line
from reseed.store.artifacts import ArtifactStore

DOCS = Path(__file__).parents[2] / "docs/problems.md"
ARC = '''
"""ARC: the share of a grid's cells that are right; none where the shape is wrong."""

import json

columns = ("pairs", "question", "truth")
metric = "cells"
higher_is_better = True


def text(grid):
    return "\\n".join("".join(str(cell) for cell in line) for line in grid)


def prompt(row):
    shown = [f"{text(pair['input'])}\\n→\\n{text(pair['output'])}\\n" for pair in json.loads(row["pairs"])]
    return "\\n".join([*shown, text(json.loads(row["question"])), "→"])


def completion(row):
    return "\\n" + text(json.loads(row["truth"]))


def parse(written):
    return "\\n".join(line for line in written.split() if line.isdigit())


def scores(answers, rows, embed):
    return [share(answer, text(json.loads(row["truth"]))) for answer, row in zip(answers, rows, strict=True)]


def share(answer, truth):
    same_shape = [len(line) for line in answer.split("\\n")] == [len(line) for line in truth.split("\\n")]
    return sum(a == b for a, b in zip(answer, truth)) / len(truth) if same_shape else 0.0
'''
LABELS = (
    'columns = ("text", "label")\nmetric = "accuracy"\nhigher_is_better = True\n'
    'def prompt(row): return row["text"]\ndef completion(row): return row["label"]\n'
    'def scores(answers, rows, embed): return [float(a == r["label"]) for a, r in zip(answers, rows)]\n'
)
HOLDOUT = {"fraction": 0.2, "group_by": "text"}
AWAY = f"owner/rows@{'c0ffee' + '0' * 34}"  # which nobody asks the hub for when a run is planned


def rehearse(recipe: Recipe, store: ArtifactStore) -> list[str]:
    """On a profile whose models come from no hub."""
    return rehearse_line(Line(recipe, load_profile("laptop"), store))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """An empty store; the working folder is another one than the recipe's."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return ArtifactStore(str(tmp_path / "store"))


def recipe(folder: Path, problem: str, train: str | None = None, group: str = "text", **changes: Any) -> Recipe:
    """A recipe with its problem beside it; the rows are on the hub unless they are said."""
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "mine.py").write_text(problem)
    held = {"fraction": 0.2, "group_by": group}
    values = {
        "name": "own", "problem": "mine", "question": "Is it?", "seeds": [0],
        "data": {"train": train or AWAY, "validation": held, "test": held}, **changes,
    }  # fmt: skip
    (folder / "own" / "own.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(str(folder / "own" / "own.yaml"))


def save(folder: Path, *rows: tuple[str, str]) -> str:
    """Labelled texts."""
    path = folder / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


def blocks() -> dict[str, str]:
    """The fenced blocks of docs/problems.md by their language."""
    return dict(re.findall(r"```(\w+)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))


def test_the_example_in_the_docs_is_short_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks()
    assert len(found["python"].splitlines()) < 40
    for name, language in (("sentiment.py", "python"), ("reviews.csv", "csv"), ("review.yaml", "yaml")):
        (tmp_path / name).write_text(found[language])
    monkeypatch.chdir(tmp_path)
    loaded, place = load_recipe("review.yaml"), load_profile("laptop")
    store = ArtifactStore(str(tmp_path / "store"))
    assert len(plan_line(loaded, place, store).members) == 3
    (note,) = rehearse(loaded, store)
    assert "'sentiment' has no blend, so its ensembles answer what most of the 3 seeds answer" in note
    problem = load_problem(loaded.problem)
    rows = [{"id": "1", "review": "Fun.", "label": "positive"}, {"id": "2", "review": "Dull.", "label": "negative"}]
    written = {"1": problem.parse(" Positive, I'd say"), "2": problem.parse("who knows")}
    assert Scorer(problem, rows, lambda texts: pytest.fail("no vectors needed")).per_row(written).tolist() == [1.0, 0.0]


def test_grids_are_one_small_file_too(tmp_path: Path, store: ArtifactStore) -> None:
    assert len(ARC.strip().splitlines()) < 40
    pairs, grid = [{"input": [[0, 1]], "output": [[1, 0]]}], [[1, 1], [0, 2]]
    row = {"pairs": json.dumps(pairs), "question": json.dumps(grid), "truth": json.dumps(grid)}
    (tmp_path / "grids.jsonl").write_text(json.dumps(row) + "\n")
    assert rehearse(recipe(tmp_path, ARC, str(tmp_path / "grids.jsonl"), "question"), store) == []
    assert rehearse(recipe(tmp_path, ARC, group="question"), store) == [], (
        "an invented row without a grid is not the problem's fault"
    )
    problem = load_problem(recipe(tmp_path, ARC).problem)
    given = problem.scores(["11\n02", "11\n00", "11"], [row] * 3, lambda texts: pytest.fail("no vectors needed"))
    assert given.tolist() == [1.0, 0.8, 0.0]


def test_the_first_row_that_is_not_refused_is_tried(tmp_path: Path, store: ArtifactStore) -> None:
    seen = LABELS + "def refuse(row): return None if row['label'] else 'no label'\n"
    seen += "def prompt(row): return {'bad': 'x'}[row['label']]\n"
    assert rehearse(recipe(tmp_path, seen, save(tmp_path, ("a", ""), ("b", "bad"), ("c", "good"))), store) == []
    (note,) = rehearse(recipe(tmp_path, seen, save(tmp_path, ("a", ""))), store)
    assert "refuses each of the first 1 rows" in note, "an invented row stands in"
    with pytest.raises(ReseedError, match=r"problem 'mine': 1 mistake\n  prompt: mine.py, line 8: KeyError: 'good'$"):
        rehearse(recipe(tmp_path, seen, save(tmp_path, ("a", ""), ("c", "good"))), store)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("def prompt(row): return [row['text']]", "prompt: gave list ['a'], wanted a text"),
        ("def prompt(row): return ' '", "prompt: gave a blank text"),
        ("def completion(row): return row['lable']", "completion: it reads row['lable'], which is none of its columns"),
        ("def completion(row): return row['lable']", "text, label (did you mean 'label'?)"),
        ("def completion(row): return None", "completion: gave NoneType None, wanted a text"),
        ("def completion(row): return lable", "completion: mine.py, line 7: NameError: name 'lable' is not defined"),
        ("def refuse(row): return row['text'] == 'z'", "refuse: gave bool False, wanted None or the reason as a text"),
        ("def parse(text): return text.split()[0]", "parse: mine.py, line 7: IndexError: list index out of range"),
        ("def parse(text): return text.split()", "parse: gave list ['"),
        ("def shorten(row, keep): return row['text'][:3]", "wanted a dict with text, label"),
        ("def shorten(row, keep): return {**row, 'label': ''}", "shorten: gave a row with another completion; it must"),
        ("def blend(answers): return answers", "blend: gave list ["),
        (
            "def scores(answers, rows, embed): return float('nan')",
            "scores gave float of shape (); wanted a list or array",
        ),
        ("def scores(answers, rows, embed): return [float('nan')] * len(rows)", "scores gave nan for the answer "),
        ("def scores(answers, rows, embed): return embed(answers)", "scores gave ndarray of shape (3, 32)"),
    ],
)
@pytest.mark.parametrize("at_hand", [True, False])
def test_a_mistake_is_told_with_its_place(
    tmp_path: Path, store: ArtifactStore, wrong: str, said: str, at_hand: bool
) -> None:
    train = save(tmp_path, ("a", "good")) if at_hand else None
    with pytest.raises(ReseedError) as caught:
        rehearse(recipe(tmp_path, f"{LABELS}{wrong}\n", train), store)
    assert str(caught.value).startswith("problem 'mine': 1 mistake\n")
    assert (said if at_hand else said.replace("'a'", "'invented text'")) in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path, store: ArtifactStore) -> None:
    wrong = "def prompt(row): return 1\ndef parse(text): return 2\n"
    with pytest.raises(ReseedError, match=r"(?s)2 mistakes\n  prompt: gave int 1.*\n  parse: gave int 2"):
        rehearse(recipe(tmp_path, LABELS + wrong), store)


def test_a_direction_that_looks_wrong_is_a_word(tmp_path: Path, store: ArtifactStore) -> None:
    (note,) = rehearse(recipe(tmp_path, f"{LABELS}higher_is_better = False\n", save(tmp_path, ("a", "good"))), store)
    assert "the right answer scores 1 and a blank one 0, with higher_is_better: False" in note


def test_a_column_that_the_source_has_not(tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "rows.csv").write_text("text,lable\na,good\n")
    with pytest.raises(ReseedError, match=r"no column 'label' \(did you mean 'lable'\?\); mine needs text, label"):
        rehearse(recipe(tmp_path, LABELS, str(tmp_path / "rows.csv")), store)


def test_a_shorten_that_changes_its_row_loses_no_text() -> None:
    """`fit` asks for the shortest form first."""
    source = (
        LABELS
        + "def shorten(row, keep):\n    row['text'] = row['text'][: int(len(row['text']) * keep)]\n    return row\n"
    )
    problem = load_problem(ProblemModule("mine", source))
    row = {"id": "1", "text": "a whole text", "label": "good"}
    assert problem.shorten(row, 0.0)["text"] == ""
    assert row["text"] == "a whole text"


def test_a_column_may_be_asked_for_and_not_be_there(tmp_path: Path, store: ArtifactStore) -> None:
    asks = LABELS + "def refuse(row):\n    try: row['hint']\n    except KeyError: return None\n"
    assert rehearse(recipe(tmp_path, asks, save(tmp_path, ("a", "good"))), store) == []


def test_an_answer_may_be_blank(tmp_path: Path, store: ArtifactStore) -> None:
    assert rehearse(recipe(tmp_path, LABELS, save(tmp_path, ("a", ""), ("b", "good"))), store) == []


@pytest.mark.parametrize("lines", ["1\n2\n", '["a", "b"]\n', "[" * 100_000])
def test_lines_that_are_no_rows_are_refused_when_planned(tmp_path: Path, store: ArtifactStore, lines: str) -> None:
    (tmp_path / "rows.jsonl").write_text(lines)
    with pytest.raises(ReseedError, match=r"rows.jsonl: cannot be read as jsonl: .*; mend the file, or its extension"):
        rehearse(recipe(tmp_path, LABELS, str(tmp_path / "rows.jsonl")), store)


def test_what_is_only_odd_is_a_note(tmp_path: Path, store: ArtifactStore) -> None:
    rows = save(tmp_path, ("a", "good"), ("b", "bad"))
    (note,) = rehearse(recipe(tmp_path, LABELS.replace("a == r", "a == ' ' + r"), rows), store)
    assert "the right answer and a blank one both score 0; does scores compare what parse finds" in note
    (note,) = rehearse(recipe(tmp_path, LABELS + "def refuse(row): return 'unknown label'\n", rows), store)
    assert "refuses each of the first 2 rows: the first because of “unknown label”" in note


def test_a_module_that_ends_the_process_is_told(tmp_path: Path, store: ArtifactStore) -> None:
    with pytest.raises(ReseedError, match=r"problem 'mine': mine.py, line 2: SystemExit: 3"):
        rehearse(recipe(tmp_path, "import sys\nsys.exit(3)\n"), store)


def test_a_table_separated_by_semicolons(tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "rows.csv").write_text("text;label\na;good\n")
    with pytest.raises(ReseedError, match="the file has text;label; is it separated by semicolons"):
        rehearse(recipe(tmp_path, LABELS, str(tmp_path / "rows.csv")), store)


def test_a_group_that_no_row_has(tmp_path: Path, store: ArtifactStore) -> None:
    said = r"data.test.group_by: no column 'txet' \(did you mean 'text'\?\); the rows have text, label, and id"
    with pytest.raises(ReseedError, match=said):
        rehearse(recipe(tmp_path, LABELS, save(tmp_path, ("a", "good")), "txet"), store)
    assert rehearse(recipe(tmp_path, LABELS, group="txet"), store) == [], "rows that are not at hand may have it"


def test_a_recipe_that_generates_needs_a_problem_that_does(tmp_path: Path, store: ArtifactStore) -> None:
    holdouts = {"data": {"validation": HOLDOUT, "test": HOLDOUT}, "generation": {"rows": 4}}
    said = (
        r"problem 'mine': a recipe that generates rows needs request and row, which it lacks; give data.train, or add "
    )
    with pytest.raises(ReseedError, match=said):
        rehearse(recipe(tmp_path, LABELS, **holdouts), store)
    able = f"{LABELS}def request(source, instruction): return source\n"
    with pytest.raises(ReseedError, match="row: gave a row without label"):
        rehearse(recipe(tmp_path, able + "def row(s, i, answer): return {'text': answer}\n", **holdouts), store)
    assert (
        rehearse(recipe(tmp_path, able + "def row(s, i, a): return {'text': s, 'label': a}\n", **holdouts), store) == []
    )


def test_what_ships_is_without_a_word(store: ArtifactStore) -> None:
    assert rehearse(load_recipe("prompt-recovery", (f"data.train={AWAY}",)), store) == []
    for name in ("quickstart", "rewrites"):
        assert rehearse(load_recipe(name), store) == []


def test_rows_of_a_dataset_in_the_store_are_at_hand(tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "rows.jsonl").write_text('{"id": "1", "text": "a", "label": "good"}\n')
    made = store.write(plain_step("publish", 1, "dataset", "rows", {"date": "2026-11-27"}), tmp_path / "made")
    store.point("dataset", "rows", "latest", made)
    wrong = f"{LABELS}def prompt(row): return {{}}[row['label']]\n"
    with pytest.raises(ReseedError, match=r"prompt: mine.py, line 7: KeyError: 'good'"):
        rehearse(recipe(tmp_path, wrong, "rows@latest"), store)


def test_the_head_of_a_file_of_each_kind(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "good"} for n in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{row['text']},good\n" for row in rows))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for kind in ("jsonl", "json", "csv", "parquet"):
        assert first_records(read_records(tmp_path / f"a.{kind}", kind)) == rows[:20], kind
        (tmp_path / f"bad.{kind}").write_bytes(b"\xff\xfe{")
        with pytest.raises(ReseedError, match=f"^bad: (is not UTF-8 text|cannot be read as {kind})"):
            first_records(read_records(tmp_path / f"bad.{kind}", "bad"))


def test_another_module_is_another_line_from_the_first_key_on(tmp_path: Path, store: ArtifactStore) -> None:
    place, train = load_profile("laptop"), save(tmp_path, ("a", "good"))

    def keys(problem: str) -> set[str]:
        return {step.artifact.key for step in plan_line(recipe(tmp_path, problem, train), place, store).steps()}

    assert keys(LABELS) == keys(LABELS)
    assert keys(LABELS) & keys(f"{LABELS}# edited\n") == set()


def test_a_variants_own_problem_is_tried_too(tmp_path: Path, store: ArtifactStore) -> None:
    train = save(tmp_path, ("a", "good"))
    (tmp_path / "own").mkdir()
    theirs = tmp_path / "own" / "theirs.py"
    theirs.write_text(LABELS + "def completion(row): return 1\n")
    variants = {"a": {}, "b": {"problem": "theirs", "training": {"loss_on": "all"}}}
    with pytest.raises(ReseedError, match=r"problem 'theirs': 1 mistake\n  completion: gave int 1"):
        rehearse(recipe(tmp_path, LABELS, train, variants=variants), store)
    theirs.write_text(LABELS + "higher_is_better = False\n")
    with pytest.raises(
        ReseedError, match=r"'theirs' of a variant: .*lower is better.*take metric and scores from 'mine'"
    ):
        rehearse(recipe(tmp_path, LABELS, train, variants=variants), store)
    variants["b"]["problem"] = "thirs"
    with pytest.raises(ReseedError, match="problem 'thirs': unknown"):
        recipe(tmp_path, LABELS, train, variants=variants)


OWN = {"a": {}, "b": {"problem": "theirs"}}


def with_own(folder: Path, problem: str, theirs: str, train: str | None = None, **changes: Any) -> Recipe:
    """A recipe of which one variant has the problem `theirs`."""
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "theirs.py").write_text(theirs)
    return recipe(folder, problem, train, variants=OWN, **changes)


@pytest.mark.parametrize("train", ["rows.csv", None], ids=["a file", "the hub"])
def test_a_variants_problem_cannot_have_columns_of_its_own(
    tmp_path: Path, store: ArtifactStore, train: str | None
) -> None:
    save(tmp_path, ("a", "good"))
    theirs = LABELS.replace('("text", "label")', '("text", "label", "reason")')
    wanted = r"'theirs' of a variant: it needs reason, but its rows are those of .* 'mine', which have text, label; let 'mine'"
    with pytest.raises(ReseedError, match=wanted):
        rehearse(with_own(tmp_path, LABELS, theirs, train and str(tmp_path / train)), store)
    theirs = f'{LABELS}def completion(row): return row["reason"]\n'
    with pytest.raises(
        ReseedError, match=r"completion: it reads row\['reason'\], which is none of its columns text, label"
    ):
        rehearse(with_own(tmp_path, LABELS, theirs, train and str(tmp_path / train)), store)


def test_a_variants_problem_is_tried_on_a_row_that_the_recipes_keeps(tmp_path: Path, store: ArtifactStore) -> None:
    train = save(tmp_path, ("a", ""), ("b", "3"))
    refuses = f'{LABELS}def refuse(row): return None if row["label"] else "no label"\n'
    number = f'{LABELS}def completion(row): return str(int(row["label"]))\n'
    assert rehearse(with_own(tmp_path, refuses, number, train), store) == []
    unasked = f'{number}def refuse(row): return "whatever it is"\n'
    assert rehearse(with_own(tmp_path, refuses, unasked, train), store) == [], "rows are the recipe's problem's matter"


def test_a_variants_problem_is_tried_by_the_recipes_metric(tmp_path: Path, store: ArtifactStore) -> None:
    train = save(tmp_path, ("a", "good"))
    careless = f"{LABELS}def scores(answers, rows, embed): return [1.0] * len(answers)\n"
    assert rehearse(with_own(tmp_path, LABELS, careless, train), store) == [], "its own scores are never asked"
    chatty = f"{LABELS}def completion(row): return f\"because: {{row['label']}}\"\n"
    (note,) = rehearse(with_own(tmp_path, LABELS, chatty, train), store)
    assert note == (
        "problem 'theirs': the right answer and a blank one both score 0; does scores compare what parse finds in a completion?"
    )


def test_an_invented_answer_of_the_generator_is_no_mistake_of_a_variants_problem(
    tmp_path: Path, store: ArtifactStore
) -> None:
    generates = (
        f"{LABELS}def request(source, instruction): return source\n"
        'def row(source, instruction, answer): return {"text": source, "label": answer}\n'
    )
    number = f'{LABELS}def completion(row): return str(int(row["label"]))\n'
    data = {"validation": HOLDOUT, "test": HOLDOUT}
    assert rehearse(with_own(tmp_path, number + generates, number, data=data, generation={"rows": 64}), store) == []
