"""What a recipe can set, section by section, with types and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RECIPES = Path(__file__).resolve().parent.parent / "recipes"  # the shipped recipes, for names that are no file here
SHAPE = ("method", "rank", "alpha", "targets", "rslora", "dora")  # what an adapter keeps when it is continued


class Section(BaseModel):
    """A frozen part of a recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationSettings(Section):
    """How synthetic rows are generated: from `rows` pairs of a passage and a prompt, drawn evenly with `seed`."""

    passages: str = "seeds/passages.txt"
    prompts: str = "seeds/prompts.txt"
    rows: int = Field(160, ge=1)
    max_new_tokens: int = Field(96, ge=1)
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    shard_rows: int | None = Field(None, ge=1)  # rows committed together; None: what the profile's engines take at once
    seed: int = 0


class Holdout(Section):
    """Rows kept out of training: whole groups, until `fraction` of the rows is reached."""

    fraction: float = Field(gt=0, lt=1)
    group_by: str


class DataSettings(Section):
    """Where rows come from and how they are split. Without `train`, the rows are generated."""

    train: str | None = None  # store name@ref, path or pattern of paths, URL, or hub id
    config: str | None = None  # of a hub dataset that has several
    split: str = "train"  # of a hub dataset
    columns: dict[str, str] | None = None  # the problem's column → the source's, where they differ
    limit: int | None = Field(None, ge=1)  # rows to use after curation, drawn with `seed`
    validation: Holdout  # chooses the best step
    test: Holdout  # the held-out rows that are scored
    seed: int = 0


class TrainingSettings(Section):
    """How one member is trained. `batch_size` counts the rows of a step over all workers."""

    method: Literal["lora", "qlora"] = "lora"  # qlora: the base in 4 bit, a mixture's experts too
    double_quantization: bool = False  # of the 4-bit base's scales
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    rslora: bool = False  # scale by alpha / √rank instead of alpha / rank
    dora: bool = False  # learn the length of every weight's columns apart from their direction
    start_from: str | None = None  # a variant, for its member of the same seed, or adapter/NAME/KEY of an earlier run
    keep_optimizer: bool = False  # store the optimiser's state with the adapter, and continue that of `start_from`
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw-8bit"] = "adamw"  # 8 bit: bitsandbytes, on a GPU
    schedule: Literal["linear", "cosine", "cyclic"] = "linear"  # down to 0; cyclic: `cycles` times, along a cosine
    cycles: int = Field(3, ge=1)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)  # 0: gradients are not clipped
    batch_size: int = Field(8, ge=1)
    evaluate_every: int = Field(10, ge=1)
    choose_by: Literal["loss", "metric"] = "loss"  # metric: the problem's, of greedy answers to `metric_rows` rows
    metric_rows: int = Field(32, ge=1)
    patience: int | None = Field(None, ge=1)  # training stops after this many evaluations without a better one
    gradient_checkpointing: bool = False  # a third slower, for a fraction of the activations' memory
    max_tokens: int = Field(512, ge=16)
    too_long: Literal["shorten", "drop"] = "shorten"  # longer rows: their source text is cut, or they are left out
    prompt_format: Literal["text", "chat"] = "text"  # the problem's own text, or the model's chat template
    system: str | None = None
    loss_on: Literal["completion", "all", "weighted"] = "completion"
    prompt_weight: float = Field(0.1, gt=0, le=1)  # with `weighted`: the weight of a prompt's token; an answer's is 1
    packing: bool = False  # several rows in one sequence, none of which sees the others
    group_by_length: bool = False  # pads less, but batches rows of similar length; packing pads less still
    zero_stage: Literal[1, 2, 3] = 2
    offload: Literal["none", "optimizer", "parameters"] = "none"  # into CPU memory; with the parameters, both

    @model_validator(mode="after")
    def _settings_agree(self) -> TrainingSettings:
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError(
                "offload 'parameters' needs zero_stage 3, which shards the parameters across the workers, "
                f"saw {self.zero_stage}; set zero_stage: 3, or offload: optimizer"
            )
        if self.offload != "none" and self.optimizer != "adamw":
            raise ValueError(
                f"offload '{self.offload}' steps the optimiser on the CPU, where optimizer '{self.optimizer}' does not "
                "run; set optimizer: adamw, or offload: none"
            )
        if self.keep_optimizer and self.zero_stage == 3:
            raise ValueError(
                "keep_optimizer stores the optimiser's state of every weight whole, which zero_stage 3 holds nowhere; "
                "set zero_stage: 2, or leave keep_optimizer out"
            )
        return self


class PredictionSettings(Section):
    """How the student answers the held-out rows: greedily, because a result must be repeatable."""

    max_new_tokens: int = Field(32, ge=1)


def is_stored(start: str) -> bool:
    """True if a `start_from` names an adapter in the store rather than a variant."""
    return start.startswith("adapter/")
