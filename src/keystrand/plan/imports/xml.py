"""XML that others wrote: no DTD, no entities, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keystrand.core.extra import extra
from keystrand.plan.imports.found import NotReadable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def parse(data: bytes, what: str) -> Element:
    """The root. Raises NotReadable for what is no XML, and for a DTD, which could expand without end or read our files."""
    from xml.etree.ElementTree import ParseError  # only for its name: the parser is the next one

    with extra("plan"):
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import fromstring
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise NotReadable(f"not {what}: has a DTD or entities, which are not read: {error}") from None
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise NotReadable(f"not {what}: not XML: {error}") from None
    return root


def local(element: Element) -> str:
    """The name of a tag without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if local(child) == name)


def child(element: Element, *path: str) -> Element | None:
    """The first element at the end of `path`."""
    at: Element | None = element
    for name in path:
        at = next(children(at, name), None) if at is not None else None
    return at


def text(element: Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""
