"""The line under SIGKILL: of the flow, of Ray's workers, of training workers, ten times in one line.

Each kill waits for its place in the line, then for a random moment. After a kill of the flow the same command is started
again. In the end the store holds, bit for bit, what an undisturbed run leaves, every step was committed once, and a
reader that looked all the time never saw half an artifact.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from line_project import LineProject, broken, contents, describe, eventually, kill

pytestmark = pytest.mark.slow
SEED = 20261120
STORE = "killed-store"
READER = "import sys; from pathlib import Path; from line_project import look; look(Path(sys.argv[1]))"
ENGINE, TRAINER, SCORER = "ray::EngineActor", "ray::RayTrainWorker", "ray::make_in_worker"
# a place in the line (a process that lives, or a text that is said), the longest wait from there, and what is killed
MOMENTS = (
    (ENGINE, 6.0, "worker"),
    ("generate: rows: ", 0.4, "worker"),
    ("generate: rows: ", 1.0, "flow"),
    (TRAINER, 7.0, "training"),
    ("step 9, validation", 1.5, "training"),
    ("step 18, validation", 0.5, "flow"),  # the log is a second late, and the member is done soon
    (TRAINER, 3.0, "flow"),  # before the worker has imported torch: later, an idle machine could finish the member
    (TRAINER, 3.0, "training"),
    (ENGINE, 5.0, "flow"),
    (SCORER, 5.0, "worker"),
)


class KilledLine:
    """The command, started again whenever it ended before its time."""

    def __init__(self, project: LineProject) -> None:
        self.project, self.log, self.starts, self.said_before = project, project.folder / "killed.txt", 0, 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        assert self.starts < 16, self.says()
        with self.log.open("a") as log:
            self.said_before = log.tell()
            arguments = ("run", "tiny-recipe.yaml", "--profile", "tiny.yaml", "--set", f"profile.store={STORE}")
            self.process = self.project.start(*arguments, log=log)

    def says(self) -> str:
        """What this start has said so far."""
        with self.log.open() as log:
            log.seek(self.said_before)
            return log.read()

    def goes_on(self) -> bool:
        """True while it runs; one that ended badly is started again."""
        if self.process.poll():
            self.start()
        return self.process.poll() is None

    def workers(self, name: str) -> list[psutil.Process]:
        return [process for process in self.project.processes() if describe(process).startswith(name)]

    def reach(self, place: str) -> None:
        """Wait until the line is there."""

        def there() -> bool:
            assert self.goes_on(), f"the line was over before it came to {place}:\n{self.says()}"
            return bool(self.workers(place)) if place.startswith("ray::") else place in self.says()

        eventually(there)

    def kill(self, kind: str, randomly: random.Random) -> str:
        """Kill a process of the kind, or the flow where there is none any more; what it was."""
        found = self.workers({"training": TRAINER, "worker": "ray::", "flow": "none"}[kind])
        victim = randomly.choice(found) if found else psutil.Process(self.process.pid)
        name = describe(victim)
        kill(victim)
        if victim.pid == self.process.pid:
            self.process.wait()
            assert self.project.left_after(30) == [], "a killed flow leaves nothing behind"
        return name


@contextmanager
def looked_at(root: Path) -> Iterator[Path]:
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
    root, randomly, killed = undisturbed.folder / STORE, random.Random(SEED), []
    with looked_at(root) as found:
        line = KilledLine(undisturbed)
        try:
            for place, longest, kind in MOMENTS:
                line.reach(place)
                time.sleep(randomly.uniform(0, longest))
                killed.append(line.kill(kind, randomly))
            eventually(lambda: not line.goes_on())
        finally:
            undisturbed.stop()
    print(*killed, f"{line.starts} starts", sep="\n")
    assert len(killed) == 10
    assert found.read_text() == ""
    assert list(broken(root)) == []
    assert contents(root) == contents(undisturbed.folder / "store")
    done = [text.split(": done in")[0].split()[-1] for text in line.log.read_text().splitlines() if ": done in" in text]
    assert len(done) == len(set(done)), "a finished step was run again"
    assert not (root / "scratch" / "train").exists() or list((root / "scratch" / "train").iterdir()) == []
