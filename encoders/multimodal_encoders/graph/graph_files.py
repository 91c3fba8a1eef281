"""Graphs in files (JSON, GraphML, SVG) and in networkx's node-link form, as mappings of ``x``, ``edge_index``, ..."""

from __future__ import annotations

import codecs
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from multimodal.core.errors import Unreadable
from multimodal.core.files import not_a_file
from multimodal_encoders.graph.svg_files import is_svg, read_svg

MAX_FILE_BYTES = 16 * 2**20  # parsed, a graph takes up to a hundred times as many
ENDPOINTS = ("source", "target")
# networkx adds the namespace to a header without one; its defaults are looked for under this name too
INCOMPLETE_HEADER = (b"<graphml>", b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">')
XML_DECLARATION = re.compile(r"^\s*\ufeff?\s*<\?xml\s[^>]{0,200}\?>")


def is_xml(text: str) -> bool:
    """Whether a text is XML, not the name of a file.

    Examples:
        >>> is_xml("<svg/>"), is_xml("icons/cup.svg")
        (True, False)
    """
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def read_graph(source: Path | bytes | str) -> Any:
    """A JSON file's value, the node-link form of a GraphML file, or the outlines of an SVG drawing.

    Args:
        source: the file, GraphML if its name ends in ``.graphml``, SVG if in ``.svg``; or its bytes, XML if they begin with
            ``<``: SVG if its root is ``svg``, else GraphML; or a text of XML.

    Raises:
        Unreadable: the file is missing, too large, or none of these.
    """
    if isinstance(source, str):  # whose characters are known, whatever its declaration says of its bytes
        source = XML_DECLARATION.sub("", source, count=1).encode(errors="replace")
    if isinstance(source, Path):
        what, content = f"the graph {source}", _content(source)
        is_graphml, is_drawing = (source.suffix.lower() == suffix for suffix in (".graphml", ".svg"))
    else:
        what, content = f"the graph of {len(source)} bytes", source
        is_graphml = content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
        is_drawing = is_graphml and is_svg(content)
    if len(content) > MAX_FILE_BYTES:
        raise Unreadable("file too large", f"{what} is larger than {MAX_FILE_BYTES >> 20} MiB.")
    if is_drawing:
        return read_svg(content, what)
    if is_graphml:
        return _of_graphml(content, what)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON", f"{what} is not JSON: {error}.") from error


def _content(path: Path) -> bytes:
    """The bytes of a file, one more than a graph may have if there are as many."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise not_a_file(path, "the graph") from error
    except (OSError, ValueError) as error:  # a name with a null character
        said = error.strerror if isinstance(error, OSError) else error
        raise Unreadable("unreadable file", f"the graph {path} cannot be read: {said}.") from error


def _of_graphml(content: bytes, what: str) -> dict[str, Any]:
    import networkx

    content = content.replace(*INCOMPLETE_HEADER, 1)
    try:
        _reject_doctype(content, what)
        graph = networkx.read_graphml(io.BytesIO(content))
        defaults = _graphml_defaults(content)
    except (expat.ExpatError, SyntaxError, networkx.NetworkXException, ValueError, LookupError, TypeError) as error:
        raise Unreadable("not GraphML", f"{what} is not GraphML that can be read ({error}).") from error
    nodes, edges = graph.nodes(data=True), graph.edges(data=True)
    return {
        "directed": graph.is_directed(),
        "nodes": [_with_lists(defaults["node"] | attributes) | {"id": node} for node, attributes in nodes],
        "links": [
            _with_lists(defaults["edge"] | attributes) | {"source": a, "target": b} for a, b, attributes in edges
        ],
    }


def _graphml_defaults(content: bytes) -> dict[str, dict[str, Any]]:
    """The values that nodes and edges without a value of their own have: networkx reads them, but does not use them."""
    from networkx.readwrite.graphml import GraphMLReader

    with warnings.catch_warnings(action="ignore"):  # a key without a type, which reading the graph reports
        keys, values = GraphMLReader().find_graphml_keys(ElementTree.fromstring(content))
    # a key is for graphs, nodes, edges, ...; for "all" if it does not say for what
    return {
        kind: {keys[key]["name"]: value for key, value in values.items() if keys[key]["for"] in (kind, "all", None)}
        for kind in ("node", "edge")
    }


def _with_lists(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with lists of numbers in the place of texts like "[1, 2]": GraphML has no lists."""
    return {name: _as_list(v) if isinstance(v, str) and v.startswith("[") else v for name, v in attributes.items()}


def _as_list(text: str) -> Any:
    """The list of numbers in a text; the text itself if it is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if _numbers(value) is None else value


def _reject_doctype(content: bytes, what: str) -> None:
    """A document type can define entities that grow without bound, or name other files; GraphML needs none."""

    def refuse(*_: Any) -> None:
        raise Unreadable("not GraphML", f"{what} declares a document type, which GraphML has no use for.")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)


def from_node_link(graph: Mapping[str, Any], with_edges: bool) -> dict[str, Any]:
    """The node-link form of networkx (``nodes`` with an ``id``, and ``links`` or ``edges`` with ``source`` and ``target``).

    Args:
        graph: the mapping.
        with_edges: whether the edges' features are wanted.

    Returns:
        ``x``, ``edge_index`` and ``edge_attr``; ``names``, the attributes that the numbers of ``x`` and ``edge_attr`` come
        from; and ``ids``, the nodes' names as texts.

    Raises:
        Unreadable: it is malformed; the message says where.
    """
    nodes = _entries(graph, "nodes")
    links = _entries(graph, "links" if "links" in graph else "edges")
    numbers: dict[Any, int] = {}
    for position, node in enumerate(nodes):
        numbers[_name(node, "id", f"node {position}")] = position
    if len(numbers) < len(nodes):
        raise _malformed("two nodes of the graph have the same id.")
    ends = []
    for position, link in enumerate(links):
        names = [_name(link, end, f"edge {position}") for end in ENDPOINTS]
        for name in names:
            if name not in numbers:
                raise _malformed(f"the graph's edge {position} names {name!r}, which is not a node.")
        ends.append([numbers[name] for name in names])
    edge_names = _numeric_names(links, {*ENDPOINTS, "key", "id"}) if with_edges else []
    features = _features(links, edge_names, "edge") if with_edges else []
    if not graph.get("directed", False):
        back = [edge for edge, (a, b) in enumerate(ends) if a != b]  # a loop is one edge
        features = [*features, *(features[edge] for edge in back if features)]
        ends = [*ends, *([ends[edge][1], ends[edge][0]] for edge in back)]
    node_names = _numeric_names(nodes, {"id"})
    return {
        "x": _features(nodes, node_names, "node"),
        "edge_index": [[a for a, _ in ends], [b for _, b in ends]],
        "edge_attr": features,
        "names": {"x": node_names, "edge_attr": edge_names},
        "ids": [str(name) for name in numbers],
    }


def _entries(graph: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    entries = graph.get(name)
    if not isinstance(entries, Sequence) or not all(isinstance(entry, Mapping) for entry in entries):
        raise _malformed(f"the graph's {name!r} is not a list of mappings, as in networkx's node-link form.")
    return entries


def _name(entry: Mapping[str, Any], key: str, what: str) -> Any:
    name = entry.get(key)
    if not isinstance(name, str | int | float):
        raise _malformed(f"the graph's {what} has no {key!r} that is a string or a number.")
    return name


def _numeric_names(entries: Sequence[Mapping[str, Any]], without: set[str]) -> list[str]:
    """The attributes that hold numbers in some entry, in alphabetical order."""
    return sorted({name for entry in entries for name, v in entry.items() if _numbers(v) is not None} - without)


def _features(entries: Sequence[Mapping[str, Any]], names: Sequence[str], what: str) -> list[list[Any]]:
    """Each entry's numbers: those of its attributes of the given names, one after another."""
    rows, widths = [], {}
    for position, entry in enumerate(entries):
        row = []
        for name in names:
            numbers = _numbers(entry.get(name))
            if numbers is None:
                raise _malformed(f"the graph's {what} {position} has no number for {name!r}, as others have.")
            if widths.setdefault(name, len(numbers)) != len(numbers):
                raise _malformed(
                    f"the graph's {what} {position} has {len(numbers)} numbers for {name!r}, {what} 0 has {widths[name]}."
                )
            row += numbers
        rows.append(row)
    return rows


def _numbers(value: Any) -> Sequence[Any] | None:
    """The numbers of an attribute, which is a number or a list of them; None: it is something else."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of numpy or torch
    if isinstance(value, Real):
        return [value]
    return value if isinstance(value, list | tuple) and all(isinstance(v, Real) for v in value) else None


def _malformed(message: str) -> Unreadable:
    return Unreadable("malformed graph", message)
