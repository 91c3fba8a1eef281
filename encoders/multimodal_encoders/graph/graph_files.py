"""Graphs in files (JSON, GraphML, SVG) and in networkx's node-link form, as mappings of ``x``, ``edge_index``, ..."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any
from xml.parsers import expat

from multimodal.core.errors import Unreadable
from multimodal_encoders.graph.svg_files import is_svg, read_svg

MAX_FILE_BYTES = 64 * 2**20
ENDPOINTS = ("source", "target")
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
    except FileNotFoundError as error:
        raise Unreadable("missing file", f"the graph {path} cannot be read: {error.strerror}.") from error
    except (OSError, ValueError) as error:  # a name with a null character
        said = error.strerror if isinstance(error, OSError) else error
        raise Unreadable("unreadable file", f"the graph {path} cannot be read: {said}.") from error


def _of_graphml(content: bytes, what: str) -> dict[str, Any]:
    import networkx

    try:
        _reject_doctype(content, what)
        graph = networkx.read_graphml(io.BytesIO(content))
    except (expat.ExpatError, SyntaxError, networkx.NetworkXException, ValueError, KeyError, TypeError) as error:
        raise Unreadable("not GraphML", f"{what} is not GraphML that can be read ({error}).") from error
    return {
        "directed": graph.is_directed(),
        "nodes": [attributes | {"id": node} for node, attributes in graph.nodes(data=True)],
        "links": [attributes | {"source": a, "target": b} for a, b, attributes in graph.edges(data=True)],
    }


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
    features = _features(links, "edge_attr", {*ENDPOINTS, "key", "id"}, "edge") if with_edges else []
    if not graph.get("directed", False):
        back = [edge for edge, (a, b) in enumerate(ends) if a != b]  # a loop is one edge
        features = [*features, *(features[edge] for edge in back if features)]
        ends = [*ends, *([ends[edge][1], ends[edge][0]] for edge in back)]
    return {
        "x": _features(nodes, "x", {"id"}, "node"),
        "edge_index": [[a for a, _ in ends], [b for _, b in ends]],
        "edge_attr": features,
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


def _features(entries: Sequence[Mapping[str, Any]], name: str, names: set[str], what: str) -> list[list[Any]]:
    """Each entry's numbers: its attribute ``name``, or else the numeric ones, without those in ``names``."""
    numeric = sorted({key for entry in entries for key, v in entry.items() if isinstance(v, Real)} - names)
    if any(name in entry for entry in entries):
        numeric = [name]
    rows = []
    for position, entry in enumerate(entries):
        missing = [key for key in numeric if not isinstance(entry.get(key), Real | str | Sequence)]
        if missing:
            raise _malformed(f"the graph's {what} {position} has no number for {missing[0]!r}, as others have.")
        rows.append(_as_list(entry[name], what, position) if numeric == [name] else [entry[key] for key in numeric])
    return rows


def _as_list(value: Any, what: str, position: int) -> list[Any]:
    if isinstance(value, str):  # GraphML knows no lists
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _malformed(f"the features of the graph's {what} {position} are not a list: {value!r}.") from error
    return value if isinstance(value, list) else [value]


def _malformed(message: str) -> Unreadable:
    return Unreadable("malformed graph", message)
