"""What every section needs: where it may write, random models in its shapes, rows, and one rank of DeepSpeed."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reseed.models.names import ModelSpec
from reseed.problems import load_problem
from reseed.records import Row as TextRow

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = load_problem("prompt-recovery")
Row = dict[str, Any]
"""One line of a section's table: `what`, and its numbers by the heading of their column."""

MIXTRAL: dict[str, dict[str, int]] = {
    "mixtral-8x7b": {},  # transformers' default
    "small": {
        "vocab_size": 1024, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 8,
        "num_attention_heads": 16, "num_key_value_heads": 4, "num_local_experts": 8,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """One section's surroundings. `tiny` is for a CPU, in seconds: it tries the script, its numbers mean nothing."""

    place: Path  # all sections of a day share it
    tiny: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def shape(self) -> str:
        """Of the models that are small enough to be saved and loaded again."""
        return "tiny" if self.tiny else "small"

    def own(self, name: str) -> Path:
        """A folder of this name."""
        folder = self.place / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def mixtral(setup: Setup, dtype: str = "bfloat16", **changes: Any) -> ModelSpec:
    """A random Mixtral of the setup's shape, saved once a day."""
    from transformers import MixtralConfig, MixtralForCausalLM

    folder = setup.place / f"mixtral-{setup.shape}"
    if not (folder / "config.json").is_file():
        save(MixtralForCausalLM, MixtralConfig(**MIXTRAL[setup.shape], max_position_embeddings=4096), folder)
    return ModelSpec(name=str(folder), dtype=dtype, **changes)  # type: ignore[arg-type]


def gemma(setup: Setup) -> ModelSpec:
    """A random Gemma 2, whose attention has a soft cap."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder, shape = setup.place / f"gemma-{setup.shape}", dict(MIXTRAL[setup.shape])
    if not (folder / "config.json").is_file():
        shape.pop("num_local_experts")
        head = shape["hidden_size"] // shape["num_attention_heads"]
        config = Gemma2Config(**shape, head_dim=head, query_pre_attn_scalar=head, max_position_embeddings=4096)
        save(Gemma2ForCausalLM, config, folder)
    return ModelSpec(name=str(folder))


def save(kind: Any, config: Any, folder: Path) -> None:
    """Random weights in bfloat16, and a byte-level tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    trained = ByteLevelBPETokenizer()
    special = ["<|pad|>", "<|start|>", "<|end|>"]
    trained.train_from_iterator(passages(), vocab_size=500, special_tokens=special, show_progress=False)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **names).save_pretrained(folder)
    config.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.05})
    kind._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def passages() -> list[str]:
    return (ROOT / "recipes" / "seeds" / "passages.txt").read_text(encoding="utf-8").splitlines()


def text_rows(count: int, words: int = 40) -> list[TextRow]:
    """Rows of prompt recovery, different ones, of so many words at most; the rewrite is the passage in capitals."""
    prompts = (ROOT / "recipes" / "seeds" / "prompts.txt").read_text(encoding="utf-8").splitlines()
    texts = passages()
    made = []
    for n in range(count):
        text = f"{n}: {' '.join(texts[n % len(texts)].split()[:words])}"
        made.append(PROBLEM.row(text, prompts[n % len(prompts)], text.upper()))
    return made


def one_rank() -> None:
    """The variables that torchrun would set for a single process; and DeepSpeed compiles nothing, as in a worker."""
    from tasks.training_worker import build_no_helpers

    build_no_helpers()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()}, MASTER_ADDR="127.0.0.1")


def tried(what: str, work: Callable[[], Row]) -> Row:
    """The row that `work` makes, or one that says why there is none, so that the section continues."""
    try:
        return {"what": what, **work()}
    except Exception as error:
        return {"what": what, "failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"}


def measured(work: Callable[[], object], device: torch.device) -> tuple[float, int | None]:
    """Seconds until the device has done it, and the most bytes that it took meanwhile, beside those that a run before
    this one has not let go of; on a CPU these are not known."""
    cuda, before = device.type == "cuda", 0
    gc.collect()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() - before if cuda else None


Section = Callable[[Setup], Iterator[Row]]
