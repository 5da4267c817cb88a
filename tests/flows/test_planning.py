"""What is planned of a recipe whose seeds are added as they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_recipe

from flows.planning import check_room, in_turn
from reseed.line import Line
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore


def line(folder: Path, seeds: object, *place_changes: str) -> Line:
    place = load_profile("laptop", (f"store={folder}/store", *place_changes))
    texts = ("generation.passages=seeds/passages.txt", "generation.prompts=seeds/prompts.txt")
    recipe = load_recipe(str(save_recipe(folder, seeds=seeds)), texts, place.name)
    return Line(recipe, place, ArtifactStore(place.store))


def test_a_list_of_seeds_cannot_grow(tmp_path: Path) -> None:
    own = line(tmp_path, [0, 1])
    assert in_turn(own, until_decided=False) == [own]
    with pytest.raises(ReseedError, match=r"its seeds are fixed, .*\{start: 3, most: 10\}.*chance of a false call"):
        in_turn(own, until_decided=True)


def test_members_of_later_looks_need_room_too(tmp_path: Path) -> None:
    own = line(tmp_path, {"start": 3, "most": 5}, "training.cpus=9999")
    made = tmp_path / "made"
    made.mkdir()
    (made / "adapter.json").write_text("{}")
    for step in own.adapters():
        own.store.write(step, made, {"best_step": 1})
    check_room([own], print)  # all that this look trains is stored
    with pytest.raises(ReseedError, match="wants 2 workers of 9999 CPU"):
        in_turn(own, until_decided=True)


def test_without_the_flag_only_the_first_look_is_made(tmp_path: Path) -> None:
    own = line(tmp_path, {"start": 3, "most": 5})
    assert in_turn(own, until_decided=False) == [own]
    assert [len(look.recipe.seeds) for look in in_turn(own, until_decided=True)] == [3, 4, 5]
