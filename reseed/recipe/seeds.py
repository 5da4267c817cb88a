"""Which seeds each variant is trained with: those of a list, or more at each look until the question is decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

LOOKS = (3, 4, 5, 6, 8, 10)  # numbers of seeds at which a comparison may be judged, as bench/truth.py measured them
WANTED = "wanted a list, as in [0, 1, 2], or {start: 3, most: 10}, or {initialisation: [0, 1, 2], order: [0, 1, 2]}"


@dataclass(frozen=True)
class Seeds:
    """The seeds of one look. `looks` are the numbers of seeds of all of them, none where a list says the seeds.

    Where they are split, those listed are the initialisations', and each is trained with each of the `orders`.
    """

    listed: tuple[int, ...]
    looks: tuple[int, ...] = ()
    orders: tuple[int, ...] = ()

    @property
    def runs(self) -> list[tuple[int, int | None]]:
        """The seed and the order of each member; no order where seeds are not split."""
        return list(product(self.listed, self.orders or (None,)))

    def __iter__(self) -> Iterator[int]:
        return iter(self.listed)

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def most(self) -> int:
        """How many there may be in the end."""
        return max(self.looks, default=len(self))

    @property
    def before(self) -> int:
        """How many the look before this one had; 0 for the first."""
        return max((look for look in self.looks if look < len(self)), default=0)

    def at(self, look: int) -> Seeds:
        """The seeds of another look."""
        return replace(self, listed=tuple(range(look)))


def as_seeds(value: object) -> Seeds:
    """What a recipe says; a validator. Raises ValueError."""
    if isinstance(value, Seeds):
        return value
    if isinstance(value, Mapping):
        return split(value) if {"initialisation", "order"} & set(value) else until_decided(value)
    if not isinstance(value, list | tuple):
        raise ValueError(WANTED)
    return Seeds(checked(tuple(value)))


def checked(seeds: tuple[object, ...]) -> tuple[int, ...]:
    """The seeds as they are, each a valid one and named once."""
    if not seeds:
        raise ValueError("wanted at least one seed")
    known: list[int] = []
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"seed {seed} is not a valid seed; wanted 0 to {2**32 - 1}")
        if seed in known:
            raise ValueError(f"seed {seed} is listed twice; name every seed once")
        known.append(seed)
    return tuple(known)


def split(value: Mapping[object, object]) -> Seeds:
    """From `{initialisation: [0, 1, 2], order: [0, 1, 2]}`."""
    if strange := set(value) - {"initialisation", "order"}:
        raise ValueError(f"has the key {', '.join(map(str, strange))}; {WANTED}")
    parts = []
    for name in ("initialisation", "order"):
        if not isinstance(own := value.get(name), list | tuple) or len(own) < 2:
            raise ValueError(f"{name} is {own}, wanted a list of two seeds or more: one shows no noise; {WANTED}")
        parts.append(checked(tuple(own)))
    if len(parts[0]) != len(parts[1]):
        raise ValueError(
            f"{len(parts[0])} initialisations and {len(parts[1])} orders; wanted as many of each, since the noise of the fewer "
            "is known so much less that intervals would be too narrow"
        )
    return Seeds(parts[0], orders=parts[1])


def until_decided(value: Mapping[object, object]) -> Seeds:
    """The first look's seeds, from `{start: 3, most: 10}`."""
    if set(value) != {"start", "most"}:
        seen = ", ".join(f"{key}: {own}" for key, own in value.items())
        raise ValueError(f"{WANTED}, saw {{{seen}}}")
    start, most = value["start"], value["most"]
    whole = isinstance(start, int) and isinstance(most, int)  # 3.0 is in LOOKS, too
    if not whole or start not in LOOKS or most not in LOOKS or start >= most:
        known = ", ".join(map(str, LOOKS))
        raise ValueError(f"start {start} and most {most}; wanted two of {known}, the smaller one first")
    return Seeds(tuple(range(start)), tuple(look for look in LOOKS if start <= look <= most))
