"""How the ranks of one member find each other."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

LOOPBACK_ONLY = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}  # instead of the interface of the machine's name


def process_group(backend: str, local: bool) -> Any:
    """Ray Train's settings of torch's process group; on a cluster, Ray's own.

    On a local Ray the ranks meet in a file in its session's folder, which nobody else can open: torch's usual store
    listens on every address and asks for no key.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

    if not local:
        return TorchConfig(backend=backend)

    class MeetingInFile(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            import ray

            place = f"file://{worker_group.execute_single(0, meeting_place)}"
            worker_group.execute(name_master)
            worker_group.execute(_set_torch_distributed_env_vars)
            ranks, limit = len(worker_group), backend_config.timeout_s
            joining = [
                worker_group.execute_single_async(
                    rank, _setup_torch_process_group, backend=backend, world_rank=rank, world_size=ranks,
                    init_method=place, timeout_s=limit,
                )
                for rank in range(ranks)
            ]  # fmt: skip
            ray.get(joining)

    class LocalTorchConfig(TorchConfig):
        @property
        def backend_cls(self) -> type[MeetingInFile]:
            return MeetingInFile

    return LocalTorchConfig(backend=backend)


def meeting_place() -> str:
    """A path for a new file, which is removed with the session."""
    import ray._private.worker

    node: Any = ray._private.worker._global_node
    return str(Path(node.get_session_dir_path()) / f"meeting-{uuid.uuid4().hex}")


def name_master() -> None:
    """Set what DeepSpeed needs to look no further for MPI; nobody listens there."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
