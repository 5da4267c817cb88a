"""The line under SIGKILL: of the flow, of Ray's workers, of training workers, ten times in one line.

Each kill waits for its place in the line, then for a random moment. After a kill of the flow the same command is started
again. In the end the store holds, bit for bit, what an undisturbed run leaves, every step was committed once, and a
reader that looked all the time never saw half an artifact.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from line_project import LineProject, broken, contents, describe, eventually, kill, manifests

pytestmark = pytest.mark.slow
SEED = 20261120
STORE = "killed-store"
READER = """
import sys, time
from pathlib import Path
from line_project import broken
while True:
    for told in broken(Path(sys.argv[1])):
        print(told, flush=True)
    time.sleep(0.05)
"""
# where in the line (a process that lives, or a text that is said), the longest wait from there, and what is killed
ENGINE, TRAINER, SCORER = "ray::EngineActor", "ray::RayTrainWorker", "ray::evaluate_in_worker"
MOMENTS = (
    (ENGINE, 6.0, "worker"),
    ("generate: rows: ", 0.4, "worker"),
    ("generate: rows: ", 1.0, "flow"),
    (TRAINER, 7.0, "training"),
    ("step 9, validation", 1.5, "training"),
    ("step 18, validation", 1.5, "flow"),
    (TRAINER, 7.0, "flow"),
    ("step 27, validation", 3.0, "training"),
    (ENGINE, 5.0, "flow"),
    (SCORER, 5.0, "worker"),
)


class KilledLine:
    """The command, started again whenever it ended before its time."""

    def __init__(self, project: LineProject) -> None:
        self.project, self.log, self.starts = project, project.folder / "killed.txt", 0
        self.said_before = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        with self.log.open("a") as log:
            self.said_before = log.tell()
            arguments = ("run", "tiny-recipe.yaml", "--profile", "tiny.yaml", "--set", f"profile.store={STORE}")
            self.process = self.project.start(*arguments, log=log)

    def says(self) -> str:
        """What this start has said so far."""
        with self.log.open() as log:
            log.seek(self.said_before)
            return log.read()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def workers(self, name: str) -> list[psutil.Process]:
        return [process for process in self.project.processes() if describe(process).startswith(name)]

    def reach(self, place: str) -> None:
        """Wait until the line is there, or has ended; a line that ended badly is started again."""

        def there() -> bool:
            if self.ended() and self.process.returncode != 0:
                self.start()
            return self.ended() or bool(self.workers(place) if place.startswith("ray::") else place in self.says())

        eventually(there)
        assert not self.ended(), f"the line was over before it came to {place}:\n{self.says()}"

    def kill(self, kind: str) -> str:
        """Kill one process of a kind; its name. Where none is left of the kind, the nearest thing to it."""
        names = {"training": TRAINER, "worker": "ray::", "flow": ""}
        found = self.workers(names[kind]) if kind != "flow" else []
        victim = random.Random(SEED).choice(found) if found else psutil.Process(self.process.pid)
        name = describe(victim)
        kill(victim)
        if victim.pid == self.process.pid:
            self.process.wait()
            left = self.project.left_after(30)
            assert left == [], "a killed flow leaves nothing behind"
            self.start()
        return name


@contextmanager
def watched(root: Path) -> Iterator[Path]:
    """A reader in a process of its own looks at the store all the time; the file holds what it found wrong."""
    found = root.parent / "reader.txt"
    with found.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", READER, str(root)], cwd=Path(__file__).parent, stdout=file)
        try:
            yield found
            assert process.poll() is None, "the reader looked until the end"
        finally:
            process.kill()
            process.wait()


def test_ten_kills_change_nothing(undisturbed: LineProject) -> None:
    import time

    root = undisturbed.folder / STORE
    randomly = random.Random(SEED)
    killed = []
    with watched(root) as found:
        line = KilledLine(undisturbed)
        try:
            for place, longest, kind in MOMENTS:
                line.reach(place)
                time.sleep(randomly.uniform(0, longest))
                killed.append(line.kill(kind))
            eventually(lambda: line.ended())
            while line.process.returncode != 0:
                assert line.starts < 20, line.says()
                line.start()
                eventually(lambda: line.ended())
        finally:
            undisturbed_processes = [p for p in undisturbed.processes()]
            for process in undisturbed_processes:
                kill(process)
    print("\n".join(killed), f"\n{line.starts} starts")
    assert len(killed) == 10
    assert found.read_text() == ""
    assert list(broken(root)) == []
    assert contents(root) == contents(undisturbed.folder / "store")
    done = [text.split(": done in")[0].split()[-1] for text in line.log.read_text().splitlines() if ": done in" in text]
    assert len(done) == len(set(done)), "a step was run again after it had been finished"
    assert len(done) == len(manifests(root))
    assert list((root / "scratch").rglob("*.pt")) == []
