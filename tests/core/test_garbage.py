"""What was loaded is frozen, and what was left of it is still collected."""

from __future__ import annotations

import gc
import weakref

import pytest

from multimodal.core.garbage import freeze_loaded, loaded_frozen


class Cycle:
    """An object that only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def scanned(thing: object) -> bool:
    return any(found is thing for found in gc.get_objects())


def test_garbage_of_what_was_frozen_is_collected() -> None:
    first = Cycle()
    seen = weakref.ref(first)
    freeze_loaded()
    assert not scanned(first)
    del first
    gc.collect()
    assert seen() is not None
    freeze_loaded()
    assert seen() is None


@pytest.mark.usefixtures("_nothing_frozen")
def test_a_block_that_fails_leaves_nothing_frozen() -> None:
    thing = Cycle()

    def fail() -> None:
        with loaded_frozen():
            assert not scanned(thing)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert gc.get_freeze_count() == 0
    assert scanned(thing)


@pytest.mark.usefixtures("_nothing_frozen")
def test_what_the_caller_froze_is_left_to_it() -> None:
    freeze_loaded()
    later = Cycle()
    with loaded_frozen():
        assert scanned(later)
    assert gc.get_freeze_count() > 10_000
