"""The connection to Ray: a cluster that the user named, or this flow's own Ray, which only this machine can reach."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reseed.files import create_file
from reseed.recipe.profile import Profile, cluster_address
from reseed.records import ReseedError
from reseed.store.leftovers import remove_temporary_folders
from tasks.sessions import remove_dead_sessions, session_root

LOOPBACK = "127.0.0.1"
_connecting = threading.Lock()


def connect(profile: Profile) -> None:
    """Join the cluster that RAY_ADDRESS or the profile names, or start a local Ray in this process."""
    import ray

    with _connecting:
        if not ray.is_initialized():
            start_ray(profile)


def store_url(profile: Profile) -> str:
    """The store's address for workers, who have another working folder."""
    return profile.store if "://" in profile.store else str(Path(profile.store).expanduser().absolute())


def start_ray(profile: Profile) -> None:
    """Call `ray.init` as this machine and the profile require.

    The kernel ends a local Ray together with the thread that started it (PR_SET_PDEATHSIG), so that a killed flow leaves
    nothing behind. A pool's threads end before the flow does, and in the main thread Ray would install a SIGTERM handler
    that hides a cancelled flow run from Prefect. So Ray is started by a thread of its own, which lives as long as the
    process.
    """
    address = cluster_address(profile)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of what `without_gpu` does
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # the delay until a finished member is noticed
    if address is None:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a local Ray has no node to lose
    remove_temporary_folders()
    started: Future[None] = Future()
    threading.Thread(target=init_and_stay, args=(address, profile, started), name="ray", daemon=True).start()
    try:
        started.result()
    except Exception as error:
        if not is_a_failed_start(error):
            raise
        if address is None:
            cure = "look for free memory, free disk and the limit of processes (ulimit -u), then start it again"
            raise ReseedError(f"Ray does not start on this machine ({error}); {cure}") from error
        raise ReseedError(
            f"Ray at '{address}' cannot be joined ({error}); start it, mend RAY_ADDRESS or the profile's "
            "ray_address, and share its token (RAY_AUTH_TOKEN_PATH)"
        ) from error


def is_a_failed_start(error: Exception) -> bool:
    """True for an error by which Ray reports that; for a process that was not ready in time, it is a bare `Exception`."""
    from ray.exceptions import RayError  # for a missing or wrong token

    return isinstance(error, (OSError, RuntimeError, ValueError, RayError)) or type(error) is Exception


def init_and_stay(address: str | None, profile: Profile, started: Future[None]) -> None:
    """Start Ray and then wait forever; the target of its own thread."""
    import ray

    try:
        if address is None:
            start_local(profile)
        else:
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except BaseException as error:
        started.set_exception(error)
        return
    started.set_result(None)
    threading.Event().wait()


def start_local(profile: Profile) -> None:
    """Start a Ray whose ports are all bound to loopback and, except for its metrics, ask for the token."""
    import ray

    require_token()
    root = session_root()
    remove_dead_sessions(root)
    with local_address():
        ray.init(
            address="local",
            num_cpus=profile.cpus,
            include_dashboard=profile.ray_dashboard,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address=LOOPBACK,
            _temp_dir=str(root),
        )
    if (address := ray.util.get_node_ip_address()) != LOOPBACK:
        ray.shutdown()
        raise RuntimeError(
            f"it listens on {address}, wanted {LOOPBACK}: this version of Ray is not the one of the lock"
        )


@contextmanager
def local_address() -> Iterator[None]:
    """Keep Ray from replacing loopback with the machine's address: on Linux it takes every Ray to be part of a cluster.

    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 does the same, but only if it is set before Ray is imported.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def require_token() -> None:
    """Switch Ray's token on, whatever the environment says, with a token that only its owner can read.

    Ray would write the file with the umask's mode, and leave the mode of an existing one.
    """
    from ray._private.authentication.authentication_token_setup import _enable_token_auth

    _enable_token_auth()
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        write_token(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise ReseedError(
            f"Ray's token {path}: {error}; set HOME to a folder that you can write, or RAY_AUTH_TOKEN_PATH to a token"
        ) from error


def write_token(path: Path) -> None:
    """Create a token's file unless there is one, at once whole and with mode 0600."""
    from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

    if not path.exists():
        # if another flow was first, its token counts
        create_file(path, generate_new_authentication_token().encode(), 0o600)


def without_gpu(gpus: float) -> dict[str, Any]:
    """Options of Ray work with `gpus` GPUs: if it has none, it must see none, while Ray would show it all of them."""
    return {} if gpus else {"runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
