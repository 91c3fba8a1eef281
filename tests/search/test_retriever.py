"""The retriever returns what the index finds, in the form that LangChain and LlamaIndex read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multimodal import Embedder, Index, create
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.retriever import Retriever

TABLE = [
    {"id": "faq-1", "question": "when do refunds arrive", "answer": "Refunds take five days."},
    {"id": "faq-2", "question": "do parcels leave on sunday", "answer": "Parcels leave on Mondays."},
    {"id": "faq-3", "question": "what does express cost", "answer": "Express costs nine euros."},
]
QUESTION = "when does a refund arrive"


@pytest.fixture(scope="module")
def index() -> Index:
    embedder = Embedder({"text": create("text", "bag", width=32)}, dim=16)
    embedder.fit_processors({"text": [row["question"] for row in TABLE] * 5})
    return Index.from_table(embedder, TABLE, columns={"text": "question"}, key="id")


@pytest.fixture
def retriever(index: Index) -> Retriever:
    return Retriever(index, text="answer", k=2)


def test_the_documents_are_the_hits_of_the_index(index: Index, retriever: Retriever) -> None:
    hits = index.search(text=QUESTION, k=2)
    found = retriever.invoke(QUESTION)
    answers = {row["id"]: row["answer"] for row in TABLE}
    assert [(one.id, one.page_content, one.score) for one in found] == [(h.key, answers[h.key], h.score) for h in hits]
    assert found[0].id == "faq-1"
    expected = {**TABLE[0], "key": "faq-1", "modality": "text", "score": hits[0].score}
    assert found[0].metadata == expected
    for others in (retriever(QUESTION), retriever.retrieve(QUESTION), asyncio.run(retriever.ainvoke(QUESTION))):
        assert others == found
    assert retriever.batch([QUESTION, "express"]) == [found, retriever.invoke("express")]


def test_the_text_may_be_a_function_of_the_hit(index: Index) -> None:
    retriever = Retriever(index, text=lambda hit: f"{hit.key}: {hit.metadata['answer']}", k=1)
    assert retriever.invoke(QUESTION)[0].page_content == "faq-1: Refunds take five days."


def test_an_empty_cell_is_an_empty_text(index: Index) -> None:
    assert index.embedder is not None
    table = [TABLE[0] | {"answer": None}, TABLE[1]]
    few = Index.from_table(index.embedder, table, columns={"text": "question"}, key="id")
    assert Retriever(few, text="answer").invoke(QUESTION)[0].page_content == ""


def test_what_cannot_work_is_refused_when_the_retriever_is_built(index: Index) -> None:
    with pytest.raises(UsageError, match="Did you mean 'answer'"):
        Retriever(index, text="answers")
    with pytest.raises(UsageError, match="no modality 'image'"):
        Retriever(index, text="answer", modality="image")
    without = Index(index.engine, index.fingerprint)
    with pytest.raises(UsageError, match="does not know its model"):
        Retriever(without, text="answer")


def test_min_precision_needs_a_calibrated_model(index: Index) -> None:
    with pytest.raises(MultimodalError, match="not calibrated"):
        Retriever(index, text="answer", min_precision=0.9).invoke(QUESTION)


@pytest.mark.filterwarnings("ignore")
def test_it_is_a_part_of_a_chain_of_langchain(retriever: Retriever) -> None:
    runnables = pytest.importorskip("langchain_core.runnables", reason="langchain-core is not installed")
    prompts = pytest.importorskip("langchain_core.prompts")

    def joined(documents: Any) -> str:
        return "\n".join(document.page_content for document in documents)

    prompt = prompts.ChatPromptTemplate.from_template("{context}\n{question}")
    context = runnables.RunnableLambda(retriever) | joined
    chain = {"context": context, "question": runnables.RunnablePassthrough()} | prompt
    text = chain.invoke(QUESTION).to_string()
    assert text == f"Human: {joined(retriever.invoke(QUESTION))}\n{QUESTION}"
    assert chain.batch([QUESTION])[0].to_string() == text
    assert asyncio.run(chain.ainvoke(QUESTION)).to_string() == text
    assert (runnables.RunnablePassthrough() | retriever).invoke(QUESTION) == retriever.invoke(QUESTION)


@pytest.mark.filterwarnings("ignore")
def test_a_query_engine_of_llama_index_answers_with_it(retriever: Retriever) -> None:
    llms = pytest.importorskip("llama_index.core.llms", reason="llama-index-core is not installed")
    engines = pytest.importorskip("llama_index.core.query_engine")

    engine = engines.RetrieverQueryEngine.from_args(retriever, llm=llms.MockLLM())
    response = engine.query(QUESTION)  # the model repeats its prompt
    assert "Refunds take five days." in response.response
    assert [node.get_score() for node in response.source_nodes] == [one.score for one in retriever.invoke(QUESTION)]
