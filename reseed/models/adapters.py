"""LoRA adapters: drawn from a seed, saved as two files, trusted only once stock PEFT has loaded them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reseed.mistakes import first_line
from reseed.models.expert_adapters import (
    FILES,
    check_expert_targets,
    has_separate_experts,
    to_checkpoint_names,
    to_module_names,
)
from reseed.models.names import is_local
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.store.leftovers import work_folder


def add_adapter(model: Any, settings: TrainingSettings, seed: int) -> Any:
    """A PeftModel with fresh LoRA weights drawn from `seed`. Every target must match a module (peft#3554)."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    kinds = ("Linear", "Linear4bit")
    linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if type(m).__name__ in kinds})
    for target in settings.targets:
        if not any(f".{name}".endswith(f".{target}") for name, _ in model.named_modules()):
            raise ReseedError(
                f"training.targets: '{target}' matches no module of the model; it has {', '.join(linear)}"
            )
    if has_separate_experts(model):
        check_expert_targets(settings.targets, settings.dora)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )
    set_seed(seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        wanted = ", ".join(settings.targets)
        raise ReseedError(
            f"training.targets: one of {wanted} matches a module that takes no LoRA ({first_line(error)}); "
            f"it has {', '.join(linear)}"
        ) from error


def continue_adapter(model: Any, settings: TrainingSettings, seed: int, folder: Path) -> Any:
    """A PeftModel that continues the adapter in `folder`; of the settings, only the dropout is new."""
    from peft import LoraConfig, PeftModel
    from transformers import set_seed

    with module_names(model, folder) as own:
        config = LoraConfig.from_pretrained(own)
        config.lora_dropout = settings.dropout
        # PEFT would look up the stored name on the hub at each save
        config.base_model_name_or_path = model.name_or_path
        set_seed(seed)  # for the dropout
        return PeftModel.from_pretrained(model, own, config=config, is_trainable=True)


def adapter_digest(model: Any) -> str:
    """The SHA-256 of the adapter's weights: equal for equal seeds before the first step."""
    from peft import get_peft_model_state_dict

    total = hashlib.sha256()
    for name, tensor in sorted(get_peft_model_state_dict(model, save_embedding_layers=False).items()):
        total.update(name.encode())
        total.update(tensor.detach().float().cpu().numpy().tobytes())
    return total.hexdigest()


def save_adapter(model: Any, folder: Path, model_name: str) -> None:
    """Write exactly `adapter_config.json` and `adapter_model.safetensors`, with the base's name but no path of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    # PEFT has no place for the base's commit, and would ask the hub for a repository of that name
    shown = Path(model_name).expanduser().resolve().name if is_local(model_name) else model_name.partition("@")[0]
    before, config.base_model_name_or_path = config.base_model_name_or_path, shown
    try:
        model.save_pretrained(folder, save_embedding_layers=False)  # never resized here; PEFT would ask the hub
    finally:
        config.base_model_name_or_path = before
    for path in folder.iterdir():
        if path.name not in FILES:
            path.unlink()
    written = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])  # a set, in another order in each process
    (folder / FILES[0]).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if has_separate_experts(model):
        to_checkpoint_names(folder)


@contextmanager
def module_names(model: Any, folder: Path) -> Iterator[Path]:
    """The folder of the saved adapter, rewritten in a temporary one if the model's modules have other names."""
    if not has_separate_experts(model):
        yield folder
        return
    with work_folder() as place:
        yield to_module_names(folder, place / "own")


def attach_adapter(model: Any, folder: Path) -> Any:
    """A PeftModel of `model` with the saved adapter."""
    from peft import PeftModel

    with module_names(model, folder) as own:
        return PeftModel.from_pretrained(model, own)


def check_stock_names(folder: Path, model_folder: Path) -> None:
    """Load the adapter with stock PEFT onto the stock model without weights: every tensor must find its place.

    Raises ReseedError with names that stock PEFT would leave out.
    """
    import torch
    from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        stock = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_folder, trust_remote_code=False))
    model = PeftModel(stock, PeftConfig.from_pretrained(folder), low_cpu_mem_usage=True)
    found = set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"), low_cpu_mem_usage=True)
    lost = [*found.unexpected_keys, *(name for name in found.missing_keys if ".lora_" in name)]
    if lost:
        raise ReseedError(f"adapter: stock PEFT finds no place, or no tensor, for {len(lost)} names, such as {lost[0]}")


def verify_adapter(folder: Path, base: Any, tokenizer: Any) -> float:
    """Load the saved adapter onto `base`; return how far it moves the logits (the largest difference).

    Raises ReseedError if the files are not exactly the two, every lora_B is zero, or the logits do not move.
    """
    import torch

    check_files(folder)
    device = next(base.parameters()).device
    ids = tokenizer("An adapter that changes nothing has learnt nothing.", return_tensors="pt").input_ids.to(device)
    with torch.inference_mode():
        plain = base.eval()(ids).logits.float()
        adapted = attach_adapter(base, folder).eval()
        if all(float(p.abs().max()) == 0 for n, p in adapted.named_parameters() if "lora_B" in n):
            raise ReseedError(
                "adapter: every lora_B is zero, so nothing was trained; raise the learning rate or the steps"
            )
        moved = float((adapted(ids).logits.float() - plain).abs().max())
    check_moved(moved)
    return moved


def check_files(folder: Path) -> None:
    """Refuse a folder that holds anything but an adapter's two files."""
    names = sorted(path.name for path in folder.iterdir())
    if names != sorted(FILES):
        raise ReseedError(f"adapter: holds {names}, wanted exactly {sorted(FILES)}")


def check_moved(moved: float) -> None:
    """Refuse an adapter that does not change the model's logits."""
    if not moved > 0:
        raise ReseedError("adapter: the model's logits are those of the base; the adapter was not applied")
