"""Retrieval for a chat bot: an object that LangChain and LlamaIndex accept, without depending on either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from multimodal.core.errors import UsageError, suggest
from multimodal.search.hits import Hit
from multimodal.search.index import Index


@dataclass(frozen=True)
class Retrieved:
    """A document found for a question, with the attributes of LangChain's ``Document`` and LlamaIndex's ``NodeWithScore``.

    Attributes:
        page_content: the text for the language model.
        metadata: the row's columns, and ``key``, ``modality``, ``score`` and, where scores are calibrated, ``probability``.
        score: cosine similarity, in [-1, 1].
        id: the row's key.

    Examples:
        >>> found = Retrieved("a red cup", {"key": "cup-1"}, 0.9, "cup-1")
        >>> found.page_content == found.node.get_content()
        True
    """

    page_content: str
    metadata: dict[str, Any]
    score: float
    id: str

    @property
    def node(self) -> Retrieved:
        """The document itself, which LlamaIndex reads its text from."""
        return self

    @property
    def node_id(self) -> str:
        """The row's key."""
        return self.id

    @property
    def text(self) -> str:
        """The text for the language model."""
        return self.page_content

    def get_content(self, metadata_mode: Any = None) -> str:
        """Return the text for the language model, without metadata in any mode of LlamaIndex."""
        return self.page_content

    def get_score(self, raise_error: bool = False) -> float:
        """Return the cosine similarity."""
        return self.score


class Retriever:
    """Finds the documents for a question: a retriever for LangChain (``invoke``) and for LlamaIndex (``retrieve``).

    It is called with a question wherever a chain of LangChain takes a function, as in ``retriever | prompt | model``.

    Args:
        index: what is searched; it knows its model, see ``Index.open``.
        text: a function of a hit, or a column of the table, that gives the text for the language model.
        k: the number of documents, at least 1.
        modality: modality of the questions.
        target: search only the vectors of this modality. None: all vectors.
        min_precision: return only documents with scores so high that this fraction of them is right, often none; see
            ``Index.search``. None: the nearest.

    Raises:
        UsageError: the index does not know its model, the model does not have the modality, or no row has the column.

    Examples:
        >>> from multimodal import create, Embedder
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["cups", "hats"] * 3})
        >>> table = [{"title": "cups", "answer": "The cups are red."}, {"title": "hats", "answer": "The hats are blue."}]
        >>> index = Index.from_table(embedder, table, columns={"text": "title"})
        >>> Retriever(index, text="answer", k=1).invoke("cups")[0].page_content
        'The cups are red.'
    """

    def __init__(
        self,
        index: Index,
        text: str | Callable[[Hit], str],
        k: int = 4,
        modality: str = "text",
        target: str | None = None,
        min_precision: float | None = None,
    ) -> None:
        index.need_model().encoder(modality)
        if isinstance(text, str) and text not in index.columns:
            raise UsageError(f"No row of the index has {text!r}.{suggest(text, sorted(index.columns))}")
        self.index, self.text, self.k = index, text, k
        self.modality, self.target, self.min_precision = modality, target, min_precision

    def __repr__(self) -> str:
        return f"Retriever of {self.k} documents from {self.index!r}"

    def invoke(self, input: Any, config: Any = None, **settings: Any) -> list[Retrieved]:
        """Return the documents that are nearest to a question, the nearest first.

        Args:
            input: the question: a value of the retriever's modality, or an object of LlamaIndex that has it as
                ``query_str``.
            config: what LangChain passes along; it is not used.
            **settings: the same.

        Raises:
            MultimodalError: the question cannot be read, or the index is damaged.
        """
        question = {self.modality: getattr(input, "query_str", input)}
        hits = self.index.search(k=self.k, target=self.target, min_precision=self.min_precision, **question)
        return [self._document(hit) for hit in hits]

    __call__ = retrieve = invoke

    async def ainvoke(self, input: Any, config: Any = None, **settings: Any) -> list[Retrieved]:
        """Return what ``invoke`` returns, while other coroutines run.

        Args:
            input: the question, see ``invoke``.
            config: what LangChain passes along; it is not used.
            **settings: the same.
        """
        return await asyncio.to_thread(self.invoke, input)

    aretrieve = ainvoke

    def batch(self, inputs: list[Any], config: Any = None, **settings: Any) -> list[list[Retrieved]]:
        """Return the documents of each of several questions.

        Args:
            inputs: the questions, see ``invoke``.
            config: what LangChain passes along; it is not used.
            **settings: the same.
        """
        return [self.invoke(question) for question in inputs]

    def _document(self, hit: Hit) -> Retrieved:
        content = hit.metadata.get(self.text) if isinstance(self.text, str) else self.text(hit)
        metadata = hit.metadata | {"key": hit.key, "modality": hit.modality, "score": hit.score}
        if hit.probability is not None:
            metadata["probability"] = hit.probability
        return Retrieved("" if content is None else str(content), metadata, hit.score, hit.key)
