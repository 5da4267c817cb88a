"""What a user does wrong, through the real command: one message with the cure, exit code 2, no traceback."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from line_project import LineProject, manifests

pytestmark = pytest.mark.slow
COLUMNS = ("original_text", "rewritten_text", "rewrite_prompt")


def save_csv(path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS) -> str:
    """A CSV file in the project; its name."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path.name


def good_rows(count: int = 24) -> list[tuple[str, str, str]]:
    """Rows that can be trained on, with eight prompts."""
    return [(f"The boat number {i}.", f"Oh boat, oh {i}!", f"Sing about the {i % 8}.") for i in range(count)]


def refused(project: LineProject, *overrides: str) -> str:
    """What the command says to a mistake."""
    given = [part for override in ("profile.store=mistakes", *overrides) for part in ("--set", override)]
    code, output = project.line(*given)
    assert code == 2, output
    assert "Traceback" not in output
    message = output[output.rindex("reseed: ") :]
    assert output.count(message.strip()) == 1, "said once, as the command's own last word"
    return message


def test_a_file_that_is_not_there(served: LineProject) -> None:
    message = refused(served, "data.train=rows.csv")
    assert "data.train: no file 'rows.csv'" in message
    assert "give a path" in message


def test_a_file_that_cannot_be_read(served: LineProject) -> None:
    (served.folder / "cut.csv").write_bytes(b'original_text,rewritten_text,rewrite_prompt\n"a,b,c\n\xff\xfe\n')
    assert "cut.csv: is not UTF-8 text" in (message := refused(served, "data.train=cut.csv"))
    assert "save it as csv in UTF-8" in message


def test_what_only_a_gpu_runs(served: LineProject) -> None:
    assert "training.optimizer: 'adamw-8bit' needs a GPU" in refused(served, "training.optimizer=adamw-8bit")
    assert "float16 is trained on a GPU only" in refused(served, "profile.roles.student.dtype=float16")


def test_a_column_that_is_not_there(served: LineProject) -> None:
    name = save_csv(
        served.folder / "columns.csv", [("a", "b", "c")], ("original_text", "rewriten_text", "rewrite_prompt")
    )
    assert "columns.csv: no column 'rewritten_text' (did you mean 'rewriten_text'?)" in refused(
        served, f"data.train={name}"
    )


def test_a_batch_that_cannot_be_shared(served: LineProject) -> None:
    message = refused(served, "training.batch_size=6")
    assert "training.batch_size: 6 rows a step cannot be shared by 1 workers in micro-batches of 4" in message
    assert "choose a multiple of 4" in message


def test_nothing_left_after_curation(served: LineProject) -> None:
    name = save_csv(served.folder / "blank.csv", [(f"text {i}", " ", "Rewrite.") for i in range(5)])
    message = refused(served, f"data.train={name}")
    assert "no row is left of 5 (empty 5)" in message
    assert "look at the source" in message


def test_more_workers_than_the_machine_has(served: LineProject) -> None:
    name = save_csv(served.folder / "good.csv", good_rows())
    message = refused(served, f"data.train={name}", "profile.training.workers=5", "training.batch_size=5")
    assert "training: profile 'tiny' wants 5 workers of 1 CPU" in message
    assert "lower profile.training.workers" in message


def test_variants_that_cannot_be_compared_are_not_trained(served: LineProject) -> None:
    name, other = (save_csv(served.folder / f"{n}.csv", good_rows()[n:]) for n in (0, 4))
    variants = f"{{all: {{}}, fewer: {{data: {{train: {other}}}}}}}"
    message = refused(served, f"data.train={name}", f"variants={variants}", "profile.store=uneven")
    assert "variant 'fewer' is scored on other rows than 'all', so they cannot be compared" in message
    assert not list((served.folder / "uneven").glob("adapter/*"))


def test_mistakes_that_only_a_worker_sees_are_not_tried_again(served: LineProject) -> None:
    """Two variants with a mistake each: the first one's is the command's message, the other's is in its log."""
    name = save_csv(served.folder / "good.csv", good_rows())
    variants = "{long: {training: {max_tokens: 4096}}, nowhere: {training: {targets: [q_proj, kv_proj]}}}"
    given = [f"data.train={name}", f"variants={variants}", "profile.store=mistakes"]
    code, output = served.line(*[part for override in given for part in ("--set", override)])
    assert code == 2, output
    assert "Traceback" not in output
    message = "reseed: training.max_tokens: 4096 is more than the model's context of 1024; lower it"
    assert output.splitlines().count(message) == 1
    assert "training.targets: 'kv_proj' matches no module of the model" in output
    keys = {path.parent.name for path in (served.folder / "mistakes" / "scratch" / "train").glob("*/*")}
    runs = [path.name[-16:] for path in (served.folder / "wandb").glob("offline-run-*")]
    assert all(runs.count(key[:16]) <= 1 for key in keys), "no worker was started twice"


@pytest.fixture
def small_disk(served: LineProject) -> Iterator[Path]:
    """A disk of 96 KiB."""
    folder = served.folder / "small-disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_no_space_in_the_store(served: LineProject, small_disk: Path) -> None:
    texts = [hashlib.sha512(str(i).encode()).hexdigest() * 3 for i in range(400)]  # which no compression makes small
    name = save_csv(served.folder / "large.csv", [(text, text[::-1], f"Sing {i % 8}.") for i, text in enumerate(texts)])
    message = refused(served, f"data.train={name}", f"profile.store={small_disk}")
    assert "no space left on the device; free some and start the same command again" in message
    assert manifests(small_disk) == {}
    assert os.statvfs(small_disk).f_bavail * 4096 > 80_000, "what could not be finished takes no space"
