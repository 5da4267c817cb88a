"""How a row becomes the student's prompt, with the same text in training and in prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reseed.records import ReseedError
from reseed.settings import TrainingSettings

Turns = list[dict[str, str]]
# In the keys of everything made with chat templates: raise it when this code renders the same prompt differently.
RENDERING = 1


@dataclass(frozen=True)
class PromptFormat:
    """`text`: the problem's own text. `chat`: that text as a user's turn in the model's chat template."""

    style: Literal["text", "chat"] = "text"
    system: str | None = None  # precedes the prompt, in a turn of its own if the template has one

    @property
    def templated(self) -> bool:
        """True if the text already holds its special tokens, so that tokenising must add none (trl#1400)."""
        return self.style == "chat"


TEXT = PromptFormat()


def prompt_format(settings: TrainingSettings) -> PromptFormat:
    """The format that the training settings ask for."""
    return PromptFormat(settings.prompt_format, settings.system)


def rendering_mark(style: PromptFormat) -> dict[str, int]:
    """The part of a key that says how chat templates are rendered, if one is used."""
    return {"rendering": RENDERING} if style.templated else {}


def format_mark(style: PromptFormat) -> dict[str, str]:
    """The part of a key that names the format, unless it is the problem's own text."""
    mark = {} if style.style == "text" else {"prompt_format": str(style.style)}
    return mark if style.system is None else mark | {"system": style.system}


def prompt_text(tokenizer: Any, text: str, style: PromptFormat) -> str:
    """The whole text before the answer."""
    if style.templated:
        return chat_text(tokenizer, text, style.system)
    return f"{style.system}\n\n{text}" if style.system else text


def prompt_ids(tokenizer: Any, text: str, style: PromptFormat = TEXT) -> list[int]:
    """A prompt's token ids, with one BOS if the model has one."""
    whole = prompt_text(tokenizer, text, style)
    return list(tokenizer(whole, add_special_tokens=not style.templated).input_ids)


def answer_ids(tokenizer: Any, text: str, completion: str, style: PromptFormat = TEXT) -> list[int]:
    """The ids of the completion after a prompt, which end with EOS.

    Prompt and completion are tokenised together, because a SentencePiece tokenizer would put a space before a lone
    completion. If a token spans the boundary, the completion is tokenised alone after all, so that the prompt's ids
    are those of prediction.
    """
    before = prompt_text(tokenizer, text, style)
    after = turn_of(tokenizer, before, text, completion, style.system) if style.templated else completion
    start = prompt_ids(tokenizer, text, style)
    whole = list(tokenizer(before + after, add_special_tokens=not style.templated).input_ids)
    joined = whole[: len(start)] == start
    answer = whole[len(start) :] if joined else list(tokenizer(after, add_special_tokens=False).input_ids)
    return answer if answer[-1:] == [tokenizer.eos_token_id] else [*answer, tokenizer.eos_token_id]


def chat_text(tokenizer: Any, text: str, system: str | None = None) -> str:
    """A user's turn and the beginning of the assistant's, with one BOS if the model has one."""
    return with_bos(tokenizer, render(tokenizer, opening(tokenizer, text, system), ask=True))


def turn_of(tokenizer: Any, before: str, text: str, completion: str, system: str | None) -> str:
    """The assistant's turn, with the template's own end of turn, which Gemma writes before EOS."""
    turns = [*opening(tokenizer, text, system), {"role": "assistant", "content": completion.strip()}]
    whole = with_bos(tokenizer, render(tokenizer, turns, ask=False))
    if not whole.startswith(before):
        raise ReseedError(
            "training.prompt_format: with the model's chat template a conversation does not begin with its own prompt: "
            f"…{before[-40:]!r} became …{whole[max(0, len(before) - 40) : len(before)]!r}; use prompt_format: text"
        )
    return whole[len(before) :].rstrip()


def opening(tokenizer: Any, text: str, system: str | None) -> Turns:
    """The turns before the answer. If the template raises for a system role (Gemma) or drops it, the user's turn has it."""
    from jinja2 import TemplateError

    if not system:
        return [{"role": "user", "content": text}]
    own = {"role": "system", "content": system}
    try:
        without_text = [own, {"role": "user", "content": "."}]  # the text may hold the system prompt too
        if system.strip() in render(tokenizer, without_text, ask=True):
            return [own, {"role": "user", "content": text}]
    except TemplateError:
        pass
    return [{"role": "user", "content": f"{system}\n\n{text}"}]


def render(tokenizer: Any, turns: Turns, ask: bool) -> str:
    """Render the turns in the model's template; with `ask`, up to where the assistant writes."""
    if tokenizer.chat_template is None:
        raise ReseedError(
            "training.prompt_format: 'chat' was asked for, but the model's tokenizer has no chat template; "
            "use prompt_format: text, or the model's instruct version"
        )
    # Qwen's templates would open a thought in prompts but not in finished turns; others ignore the switch
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=ask, tokenize=False, enable_thinking=False))


def with_bos(tokenizer: Any, text: str) -> str:
    """The text with BOS before it, if the tokenizer adds one and the template did not write it."""
    bos = tokenizer.bos_token
    if bos is None or text.startswith(bos) or tokenizer("").input_ids[:1] != [tokenizer.bos_token_id]:
        return text
    return f"{bos}{text}"
