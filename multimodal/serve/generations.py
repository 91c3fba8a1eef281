"""What a server answers from, one generation after another: an index with its model, and the application on top of them.

1. A ``Generation`` is a model, the index of its vectors, and an application that answers from these two alone.
2. ``find_model`` says which local folder has the model of an index: the server's own, or the one that an upgrade recorded.
3. ``SwitchingApp`` gives each request to the present generation. It looks once a second whether another index has taken the
   place of the present one; then it opens that one while the present one answers, and gives it the requests that come.
4. A generation that was replaced answers what it was given, and is closed then. So every answer is of one model.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from multimodal.core.digests import DIGEST
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError
from multimodal.core.garbage import freeze_loaded
from multimodal.core.hardware import fast_device
from multimodal.core.model_folder import read_description
from multimodal.monitor.new_index import MAP, working_folder
from multimodal.monitor.query_map import DOCUMENT, QueryMap, map_queries, stored_map
from multimodal.search.index import Index
from multimodal.search.index_folder import (
    DESCRIPTION,
    MODEL,
    IndexFolder,
    open_index_folder,
    read_index_description,
)

EVERY = 1.0  # seconds between two looks
AGAIN = 10.0  # seconds until what could not be opened is tried again


class Identity(NamedTuple):
    """What identifies the answers of a generation.

    Attributes:
        index: the fingerprint of the model whose vectors the index has.
        query_map: the digest of the map of queries from another model. None: queries are of the same model.
    """

    index: str
    query_map: str | None


def identity_of(index: Path) -> Identity:
    """Return what is to be served of the index in a folder.

    Args:
        index: the folder.

    Raises:
        MultimodalError: there is no index, or it is damaged.
    """
    fingerprint = read_index_description(index)["fingerprint"]
    mapped = stored_map(working_folder(index) / MAP)
    of_this = mapped is not None and mapped["old"] == fingerprint
    return Identity(fingerprint, mapped[DIGEST] if mapped is not None and of_this else None)


MakeApp = Callable[[Index, str], FastAPI]
OpenFolder = Callable[[Path], IndexFolder]


def find_model(index: Path, known: Iterable[Path]) -> Path:
    """Return the folder of the model whose vectors an index has.

    Args:
        index: folder of the index.
        known: folders of models, in the order of preference; the one that an upgrade recorded in the index comes last.

    Raises:
        MultimodalError: none of them can be read; the message is about the first one.

    Returns:
        The folder of the model of that fingerprint; if there is none, the first model that can be read.
    """
    description = read_index_description(index)
    recorded = description.get(MODEL)
    first: MultimodalError | None = None
    others: list[Path] = []
    for folder in [*known, *([Path(recorded)] if isinstance(recorded, str) else [])]:
        try:
            found = read_description(folder)["fingerprint"]
        except MultimodalError as error:
            first = first or error
            continue
        if found == description["fingerprint"]:
            return folder
        others.append(folder)
    if others:  # it may have the vectors of another model, to which a modality was added
        return others[0]
    raise first or MultimodalError(f"The model of {index} is not known.")


class Generation:
    """An index with its model, and the application that answers from it.

    Args:
        index: the index, which knows its model.
        model: the folder of the model.
        app: answers requests.
        identity: what it answers from.

    Attributes:
        active: the requests that it is answering.

    Examples:
        >>> from multimodal import create
        >>> from multimodal.serve.app import create_app
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup"]})
        >>> index = Index.from_table(embedder, [{"name": "a red cup"}], columns={"text": "name"})
        >>> Generation(index, Path("runs/a"), create_app(index), Identity(index.fingerprint, None)).active
        0
    """

    def __init__(self, index: Index, model: Path, app: FastAPI, identity: Identity) -> None:
        self.index, self.model, self.app, self.identity, self.active = index, model, app, identity, 0
        self._context: AbstractAsyncContextManager[object] | None = None

    @classmethod
    def open(
        cls, index: Path, known: Iterable[Path], make: MakeApp, open_folder: OpenFolder = open_index_folder
    ) -> Generation:
        """Open the index in a folder with its model.

        Args:
            index: the folder.
            known: see ``find_model``.
            make: makes the application, of the index and the name of the model.
            open_folder: opens the folder of the index.

        Raises:
            MultimodalError: the model or the index cannot be read, or do not belong together.
        """
        identity = identity_of(index)
        if identity.query_map is None:
            model = find_model(index, known)
            embedder = Embedder.from_pretrained(model).to(fast_device())
            opened = Index.of_opened(index, open_folder(index), embedder)
        else:
            query_map = QueryMap.load(working_folder(index) / MAP)
            model = Path(query_map.model)
            embedder = Embedder.from_pretrained(model, modalities=[*query_map.maps])
            map_queries(embedder.to(fast_device()), query_map)
            opened = Index.of_opened(index, open_folder(index))
            opened.embedder, opened.mapped = embedder, True
        return cls(opened, model, make(opened, model.resolve().name), identity)

    async def start(self) -> None:
        """Let the application begin."""
        self._context = self.app.router.lifespan_context(self.app)
        await self._context.__aenter__()

    async def close(self) -> None:
        """End the application's threads, and close the index."""
        if self._context is not None:
            await self._context.__aexit__(None, None, None)
            self._context = None
        if self.index.learned is not None:
            await asyncio.to_thread(self.index.learned.close)
        await asyncio.to_thread(self.index.close)
        self.index.learned = self.index.embedder = None  # see ``Service.close``


class SwitchingApp:
    """An ASGI application that answers from the index in a folder, also after another one has taken its place.

    Args:
        folder: the folder of the index.
        first: what answers at first.
        make: makes the application of a further generation.
        every: seconds between two looks at the folder.
        at_end: called when the server has answered its last request. A signal ends the process soon after that. None: nothing.
        open_folder: opens the folder of the index.
        announces: whether it prints which index it continues with; of several workers, one does.

    Attributes:
        current: what answers now.

    Examples:
        >>> from multimodal import create
        >>> from multimodal.serve.app import create_app
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup"]})
        >>> index = Index.from_table(embedder, [{"name": "a red cup"}], columns={"text": "name"})
        >>> first = Generation(index, Path("runs/a"), create_app(index), Identity(index.fingerprint, None))
        >>> app = SwitchingApp(Path("index"), first, lambda index, name: create_app(index, name=name))
        >>> app.current is first
        True
    """

    def __init__(
        self,
        folder: Path,
        first: Generation,
        make: MakeApp,
        every: float = EVERY,
        at_end: Callable[[], object] | None = None,
        open_folder: OpenFolder = open_index_folder,
        announces: bool = True,
    ) -> None:
        self.current, self._announces = first, announces
        self._folder, self._make, self._every, self._open_folder = folder, make, every, open_folder
        self._known = [first.model]  # models that were served, the newest first
        self._closing: set[asyncio.Task[None]] = set()
        self._seen: object = None  # the state of the files when the index was last opened, see ``_state``
        self._looked_at: object = None
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        generation = self.current
        generation.active += 1
        try:
            await generation.app(scope, receive, send)
        finally:
            generation.active -= 1
            self._close_if_done(generation)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.current.start()
        freeze_loaded()
        watching = asyncio.create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await asyncio.gather(*self._closing)
        await self.current.close()
        if self._at_end is not None:
            await asyncio.to_thread(self._at_end)
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._look()
            except Exception as error:  # the present generation answers, whatever is wrong with the new one
                if await asyncio.to_thread(self._state) != self._looked_at:  # replaced again while it was opened
                    continue
                reason = error if isinstance(error, MultimodalError) else f"{type(error).__name__}: {error}."
                print(
                    f"The index {self._folder} was replaced, and the new one cannot be served: {reason} The former one is"
                    f" served; trying again in {AGAIN:g} s.",
                    file=sys.stderr,
                    flush=True,
                )
                self._seen = None
                await asyncio.sleep(AGAIN)

    async def _look(self) -> None:
        """Continue with the index in the folder, if it is of another model than the present one, or queries are mapped."""
        seen = await asyncio.to_thread(self._state)
        self._looked_at = seen
        if seen is None or seen == self._seen:  # nothing is there for an instant where folders cannot change places
            return
        if await asyncio.to_thread(identity_of, self._folder) != self.current.identity:
            known = list(self._known)
            new = await asyncio.to_thread(Generation.open, self._folder, known, self._make, self._open_folder)
            await new.start()
            former, self.current = self.current, new
            self._known = [new.model, *(model for model in self._known if model != new.model)]
            mapped = " and its queries mapped" if new.index.mapped else ""
            if self._announces:
                print(f"Serving {len(new.index):,} vectors with the model {new.model}{mapped} from now on", flush=True)
            self._close_if_done(former)
        self._seen = seen

    def _state(self) -> object:
        """Return what changes with the files that say what is served; None: there is no index now."""
        states = []
        for file in (self._folder / DESCRIPTION, working_folder(self._folder) / MAP / DOCUMENT):
            try:
                found = os.stat(file)
                states.append((found.st_dev, found.st_ino, found.st_mtime_ns))
            except OSError:
                states.append(None)
        return None if states[0] is None else tuple(states)

    def _close_if_done(self, generation: Generation) -> None:
        if generation is not self.current and not generation.active:
            task = asyncio.get_running_loop().create_task(self._close(generation))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close(self, former: Generation) -> None:
        try:
            await former.close()
        finally:
            del former
            freeze_loaded()
