"""Weights & Biases: a run for each member and one for the experiment, in one group; offline unless the user is logged in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reseed.records import Artifact, LossPoint
from reseed.results import Results
from reseed.store.artifacts import ArtifactStore

PROJECT = "reseed"  # unless WANDB_PROJECT or `wandb init` says another
PLACES = {f"WANDB_{name}" for name in ("SERVICE", "DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR")}  # here
TYPES = {"adapter": "model"}  # what W&B calls a kind; any other is a data set to it


@dataclass(frozen=True)
class Account:
    """How this process reaches W&B: the variables that another process needs to do the same, among them a key."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: str = "."  # runs are kept in its folder `wandb`, where `wandb sync` looks
    warning: str | None = None

    @property
    def mode(self) -> str:
        """`online`, `offline`, `disabled` or `shared`."""
        return self.variables["WANDB_MODE"]


@dataclass(frozen=True)
class TrackedRun:
    """What identifies a run. Its id is the artifact's key, so a member that resumes does so in the run that it began."""

    artifact: Artifact
    group: str
    name: str
    job_type: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Reference:
    """An artifact of the store as W&B lists it: its files stay where they are."""

    artifact: Artifact
    files: Sequence[tuple[str, str, int]]  # path, address, bytes
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class OfflineRun:
    """The files of an offline run, on the way to the machine where the user looks for them."""

    name: str
    files: Mapping[str, bytes]

    def unpack(self, folder: Path) -> None:
        """Write them where `wandb sync`, started in `folder`, finds them."""
        for path, content in self.files.items():
            target = folder / "wandb" / self.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def find_account() -> Account:
    """Find the account as wandb itself does: the environment, ~/.netrc by host, `wandb login` and its settings files.

    A mode that is set, also by `wandb offline`, stays. Without one, a user who has no key is not asked for it: the run
    is kept offline. wandb has no public function that looks for a key and does not ask.
    """
    import wandb
    from wandb.sdk.lib import wbauth

    forget_service()
    variables = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    variables = {name: value for name, value in variables.items() if name not in PLACES}
    settings = wandb.setup().settings
    folder = str(Path(os.environ.get("WANDB_DIR") or ".").expanduser().absolute())
    mode, warning = settings.mode, None
    if mode == "online":
        try:
            found = wbauth.authenticate_session(
                host=settings.base_url, source=PROJECT, prompt=False, update_session=False
            )
        except wandb.errors.Error as error:
            found, warning = None, f"Weights & Biases: {error}; runs are kept offline in {folder}/wandb"
        if isinstance(found, wbauth.AuthApiKey):
            variables["WANDB_API_KEY"] = found.api_key
        elif found is None and (warning or "WANDB_MODE" not in os.environ):
            mode = "offline"
    variables |= {"WANDB_MODE": mode, "WANDB_BASE_URL": settings.base_url}
    variables |= {"WANDB_PROJECT": settings.project} if settings.project else {}
    return Account(variables, folder, warning)


def forget_service() -> None:
    """Let this process start a service of its own: one that another process started ends with that process, and of one that
    ended here its socket is gone."""
    service = os.environ.get("WANDB_SERVICE", "")
    socket = service.partition("-unix-")[2]
    if f"-{os.getpid()}-" not in service or (socket and not Path(socket).exists()):
        os.environ.pop("WANDB_SERVICE", None)


def reference(store: ArtifactStore, artifact: Artifact) -> Reference:
    """Where the files of a stored artifact are, and what its manifest says of them."""
    manifest = store.manifest(artifact)
    base = (Path(store.root) / manifest.place).as_uri() if store.local else f"{store.url}/{manifest.place}"
    files = [(file.path, f"{base}/{file.path}", file.size) for file in manifest.files]
    sums = {file.path: file.sha256 for file in manifest.files}
    return Reference(artifact, files, {"key": artifact.key, "inputs": manifest.inputs, "sha256": sums})


class Tracker:
    """One run of W&B."""

    def __init__(self, run: TrackedRun, folder: Path, mode: str) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        forget_service()
        self.warning: str | None = None
        try:
            self.run = begin(run, folder, mode)
        except wandb.errors.Error as error:  # a server that cannot be reached must not cost a member
            self.warning = f"Weights & Biases: {error}; the run is kept offline in {folder}/wandb"
            wandb.teardown()  # the service would say that the run's id is in use
            self.run = begin(run, folder, "offline")

    def point(self, point: LossPoint) -> None:
        """Log a point of the loss curve."""
        values = {"train/loss": point.train, "validation/loss": point.validation, "validation/metric": point.metric}
        self.run.log({"step": point.step, **{k: v for k, v in values.items() if v is not None}}, step=point.step)

    def read(self, source: Reference) -> None:
        """Record an artifact that the run used. Offline it is logged as an output: only the server can link inputs."""
        if self.run.settings.mode == "online":
            self.run.use_artifact(wandb_artifact(source))
        else:
            self.write(source)

    def write(self, made: Reference) -> None:
        """Record an artifact that the run made."""
        self.run.log_artifact(wandb_artifact(made), aliases=[made.artifact.key[:12]])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and end the run; a run left open would swallow the next one."""
        self.run.summary.update(dict(summary))
        self._end(exit_code=0)

    def abandon(self) -> None:
        """End the run of a member that failed; if the member resumes, so does the run."""
        self._end(exit_code=1)

    def _end(self, exit_code: int) -> None:
        import wandb

        self.run.finish(exit_code=exit_code)
        wandb.teardown()  # its service too, or the folder of its socket stays behind

    def packed(self) -> OfflineRun | None:
        """The files of a run that has ended, if it was offline; logs and W&B's own copies are left out."""
        place = Path(self.run.settings.sync_dir)
        if not place.name.startswith("offline-run-"):
            return None
        kept = [path for path in place.rglob("*") if path.is_file() and path.suffix != ".log"]
        return OfflineRun(place.name, {path.relative_to(place).as_posix(): path.read_bytes() for path in kept})


def begin(run: TrackedRun, folder: Path, mode: Any) -> Any:
    """`wandb.init`, with what W&B measures of the machine."""
    import wandb

    return wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        id=run.artifact.key[:16],
        group=run.group,
        name=run.name,
        job_type=run.job_type,
        config={**run.config, "artifact": run.artifact.path},
        dir=str(folder),
        mode=mode,
        resume="allow",
        reinit="finish_previous",  # the default merges the runs of one process
        settings=wandb.Settings(silent=True, console="off"),
    )


def wandb_artifact(source: Reference) -> Any:
    """W&B's record of an artifact. Its own `add_reference` would want boto3 for s3://, even with nothing to compare."""
    import wandb
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    made = source.artifact
    name = re.sub(r"[^\w.-]+", "-", f"{made.kind}-{made.name}")[:128]
    found = wandb.Artifact(name, type=TYPES.get(made.kind, "dataset"), metadata=dict(source.metadata))
    for path, address, size in source.files:
        if address.startswith("file://"):
            found.add_reference(address, name=path)
        else:
            found.manifest.add_entry(ArtifactManifestEntry(path=path, ref=address, digest=address, size=size))
    return found


def track_results(run: TrackedRun, results: Results, inputs: Sequence[Reference], account: Account) -> str | None:
    """The experiment's own run: mean, spread and blend of every variant, and every member in a table. Returns a warning.

    Raises whatever W&B raises where the run could not be written."""
    import wandb

    tracker = Tracker(run, Path(account.folder), account.mode)
    rows = [
        [v.name, m.seed if m.order is None else m.run, m.score, m.best_step, m.artifact]
        for v in results.variants
        for m in v.members
    ]
    columns = ["variant", "seed", "score", "best_step", "artifact"]
    tracker.run.log({"members": wandb.Table(columns=columns, data=rows)})
    for source in inputs:
        tracker.read(source)
    tracker.finish(summary_of(results))
    return tracker.warning


def summary_of(results: Results) -> dict[str, Any]:
    """Flat names, so that W&B can plot and sort by them."""
    found: dict[str, Any] = {"metric": results.metric, "rows": results.rows, "untrained": results.untrained}
    for variant in results.variants:
        values = {"mean": variant.mean, "std": variant.std, "ensemble": variant.ensemble, "seeds": len(variant.members)}
        found |= {f"{variant.name}/{name}": value for name, value in values.items() if value is not None}
    for one in results.comparisons:
        names = f"{one.a} − {one.b}" + (" (ensemble)" if one.estimand == "ensemble" else "")
        said = {
            name: getattr(one, name) for name in ("difference", "low", "high", "adjusted_p", "verdict", "decided_at")
        }
        found |= {f"{names}/{name}": value for name, value in said.items() if value is not None}
    for over in results.over_splits:
        names, said = f"{over.a} − {over.b} over splits", asdict(over)
        kept = ("difference", "low", "high", "adjusted_p", "verdict", "splits")
        found |= {f"{names}/{name}": said[name] for name in kept if said[name] is not None}
    return found
