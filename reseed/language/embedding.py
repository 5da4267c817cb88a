"""The embedder, which turns texts into unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reseed.models.cache import materialise
from reseed.models.names import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reseed.problems import Embed


def load_embedder(spec: ModelSpec) -> Embed:
    """A function from texts to float32 unit vectors, shape (texts, width). It embeds each text once."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    safe = {"use_safetensors": True}
    model = SentenceTransformer(str(materialise(spec)), device=None, trust_remote_code=False, model_kwargs=safe)

    known: dict[str, NDArray[np.float32]] = {}  # so that equal texts get equal bits, whatever batch they fall into

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        if fresh := list(dict.fromkeys(text for text in texts if text not in known)):
            vectors = model.encode(fresh, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
            known.update(zip(fresh, np.asarray(vectors, dtype=np.float32), strict=True))
        return np.stack([known[text] for text in texts])

    return embed
