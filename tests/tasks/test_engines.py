"""The pool of engine actors on a real local Ray, with a tiny model."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tiny import save_profile

from reseed.generation.engine import Batch
from reseed.problems import ProblemModule
from reseed.recipe.profile import Profile, load_profile
from reseed.records import Artifact, Prompt, ReseedError, Sampling
from tasks.cluster import connect
from tasks.engines import engine_pool
from tasks.slots import training_slot
from tasks.time_limit import time_limit
from tasks.waiting import stoppable, wait_for_result, wait_until

pytestmark = pytest.mark.slow
SHORT, ENDLESS = Sampling(4), Sampling(900, temperature=1.0)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """A profile with one actor, and Ray in this process."""
    import ray

    folder = tmp_path_factory.mktemp("placement")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEED_CACHE", str(folder / "cache"))
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("HOME", str(folder))  # of Ray's token
        patch.setenv("RAY_AUTH_MODE", "disabled")  # inherited from a shell where it helped somebody
        patch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as on a machine with a GPU
        path = save_profile(folder, str(folder / "store"))
        made = load_profile(str(path))
        connect(made)
        yield made
        ray.shutdown()


def job(name: str, sampling: Sampling = SHORT, text: str = "The sea") -> Batch:
    """Four prompts."""
    return Batch(name, sampling, 1, tuple(Prompt(f"{name}{i}", f"{text} {i}") for i in range(4)))


def actors() -> list[psutil.Process]:
    """The processes of engine actors that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # one that ends just now
            if "ray::EngineActor" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_failing_job_does_not_stop_the_others(profile: Profile) -> None:
    broken = replace(job("broken"), adapter=Artifact("adapter", "nobody", "made-it"))
    done: list[tuple[str, dict[str, str]]] = []

    def run_all() -> None:
        with engine_pool(profile, profile.roles.generator, 3) as pool:
            for one, answers, _ in pool.run([job("a"), broken, job("b", text="sea " * 2000)]):
                done.append((one.id, {answer.id: answer.finish for answer in answers}))

    with pytest.raises(
        ReseedError, match=r"^store .*: there is no adapter/nobody/made-it; run the step that makes it$"
    ):
        run_all()
    (first, finishes), (second, too_long) = done
    assert (first, second) == ("a", "b")
    assert set(finishes) == {"a0", "a1", "a2", "a3"}
    assert set(too_long.values()) == {"too-long"}, "an over-long prompt is an answer too"


def test_a_model_that_cannot_be_loaded_is_reported_as_it_is(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    spec = profile.roles.generator.model_copy(update={"name": str(tmp_path)})
    with engine_pool(profile, spec, 1) as pool, pytest.raises(ReseedError, match=r"cannot be loaded|tokenizer"):
        list(pool.run([job("a")]))


def test_the_job_of_a_killed_actor_is_done_by_its_successor(profile: Profile) -> None:
    killed, before = threading.Event(), {process.pid for process in actors()}

    def kill_while_it_works() -> None:
        while not (found := [process for process in actors() if process.pid not in before]):
            time.sleep(0.05)
        time.sleep(0.5)
        found[0].kill()
        killed.set()

    with engine_pool(profile, profile.roles.generator, 2) as pool:
        threading.Thread(target=kill_while_it_works, daemon=True).start()
        answers = {one.id: given for one, given, _ in pool.run([job("a", ENDLESS), job("b", ENDLESS)])}
    assert killed.is_set()
    of_a, of_b = ([(answer.text, answer.finish) for answer in answers[name]] for name in "ab")
    assert of_a == of_b, "what the successor did again is what an undisturbed actor writes"


def test_work_that_hangs_is_given_up_when_its_time_is_over(profile: Profile) -> None:
    """The main thread waits inside Ray, for an actor that is stopped alive."""
    before = {process.pid for process in actors()}

    def stop_it() -> None:
        end = time.monotonic() + 60
        while not (found := [process for process in actors() if process.pid not in before]):
            assert time.monotonic() < end, "no actor started"
            time.sleep(0.05)
        found[0].suspend()

    def run_all() -> None:
        with engine_pool(profile, profile.roles.generator, 1) as pool:
            stop_it()  # before its time runs: on a busy machine it would be over before there is an actor
            with time_limit(4 / 3600, "the night"):
                list(pool.run([job("a", ENDLESS)]))

    with pytest.raises(ReseedError, match=r"^the night is not done after 0.001\d* hours and was stopped"):
        run_all()
    end = time.monotonic() + 30
    while (left := {process.pid for process in actors()} - before) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def test_of_work_that_is_stopped_ray_says_nothing(profile: Profile, capfd: pytest.CaptureFixture[str]) -> None:
    """It would say that the jobs are retried, which they are not, even after the command's own last line."""
    before = {process.pid for process in actors()}

    def run_all() -> None:
        with engine_pool(profile, profile.roles.generator, 2) as pool:
            for _ in pool.run([job("a"), job("b", ENDLESS)]):
                time.sleep(1)  # the second job has begun
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all()
    end = time.monotonic() + 30
    while (left := {process.pid for process in actors()} - before) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(2)
    assert not left
    assert "retr" not in "".join(capfd.readouterr())


def test_a_job_that_kills_every_actor_does_not_stop_the_others(profile: Profile) -> None:
    """An actor that Ray no longer restarts would fail all jobs that wait, at once."""
    killer = replace(job("killer"), rows=({"id": "row"},), problem=ProblemModule("deadly", "import os\nos._exit(1)\n"))
    done: list[str] = []

    def run_all() -> None:
        with engine_pool(profile, profile.roles.generator, 3) as pool:
            done.extend(one.id for one, _, _ in pool.run([job("a"), killer, job("b"), job("c")]))

    with pytest.raises(
        ReseedError, match=r"^1 of 4 jobs failed, the first is killer: .*; the others are done and kept"
    ):
        run_all()
    assert done == ["a", "b", "c"]


def test_ray_outlives_the_thread_that_asked_for_it(profile: Profile) -> None:
    """The kernel ends a local Ray with the thread that started it: that one stays."""
    import ray

    assert [thread.name for thread in threading.enumerate()].count("ray") == 1
    assert ray.cluster_resources()["CPU"] == 2


def test_a_local_ray_is_reached_from_this_machine_with_its_token(profile: Profile) -> None:
    from ray._raylet import AuthenticationMode, get_authentication_mode

    with engine_pool(profile, profile.roles.generator, 1) as pool:
        list(pool.run([job("a")]))
        listened = [
            (port.laddr.ip, process.name())
            for process in (psutil.Process(), *psutil.Process().children(recursive=True))
            for port in process.net_connections("inet")
            if port.status == psutil.CONN_LISTEN
        ]
    assert {"gcs_server", "raylet"} <= {name for _, name in listened}
    assert [one for one in listened if one[0] not in ("127.0.0.1", "::ffff:127.0.0.1")] == []
    token = Path.home() / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert get_authentication_mode() == AuthenticationMode.TOKEN


def test_an_engine_that_was_given_no_gpu_sees_none(profile: Profile) -> None:
    before = {process.pid for process in actors()}
    with engine_pool(profile, profile.roles.generator, 1) as pool:
        list(pool.run([job("a")]))
        (actor,) = [process for process in actors() if process.pid not in before]
        assert actor.environ()["CUDA_VISIBLE_DEVICES"] == ""


def test_members_that_do_not_fit_are_refused_or_wait(profile: Profile) -> None:
    large = profile.model_copy(update={"training": profile.training.model_copy(update={"workers": 3})})
    with (
        pytest.raises(ReseedError, match=r"3 workers of 1 CPU .* do not fit into this Ray with 2 CPU"),
        training_slot(large),
    ):
        pass
    both = profile.model_copy(update={"training": profile.training.model_copy(update={"workers": 2})})
    order = []

    def member(name: str) -> None:
        with training_slot(both):
            order.append(f"{name} begins")
            time.sleep(0.2)
            order.append(f"{name} ends")

    threads = [threading.Thread(target=member, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.split()[1] for line in order] == ["begins", "ends", "begins", "ends"]


def test_ctrl_c_reaches_the_threads_that_wait() -> None:
    ended: list[str] = []

    def wait_for_ray() -> None:
        try:
            wait_for_result(lambda: time.sleep(60))
        except KeyboardInterrupt:
            ended.append("waited for Ray")

    def wait_for_another() -> None:
        try:
            wait_until(lambda: False, every=60.0)
        except KeyboardInterrupt:
            ended.append("waited for another flow")

    threads = [threading.Thread(target=wait, daemon=True) for wait in (wait_for_ray, wait_for_another)]

    def flow() -> None:
        with stoppable():
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        flow()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == ["waited for Ray", "waited for another flow"]
    assert time.monotonic() - begin < 10


def test_a_failed_member_lets_the_others_finish() -> None:
    with pytest.raises(ReseedError), stoppable():
        raise ReseedError("one member")
    assert wait_for_result(lambda: os.getpid()) == os.getpid()
    with pytest.raises(ValueError, match="as it is"):
        wait_for_result(lambda: int("as it is"))
