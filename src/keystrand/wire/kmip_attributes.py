"""Attributes of KMIP objects, in the two forms that they take on the wire.

KMIP 1.x wraps each in an Attribute of name and value; KMIP 2.x gives each a tag of its own and puts all of them in
Attributes. Custom attributes are `x-VENDOR-NAME` in 1.x and a vendor with a name in 2.x.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from keystrand.core.errors import BadRequest
from keystrand.wire import kmip_ttlv as ttlv
from keystrand.wire.kmip_names import UNINTERPRETED_TEXT, V2_0, Tag, Version
from keystrand.wire.kmip_ttlv import Item, Type, Value

CUSTOM: Final = "x-"
VENDOR: Final = "keystrand"

TAGS: Final = {
    "Unique Identifier": Tag.UNIQUE_IDENTIFIER,
    "Name": Tag.NAME,
    "Object Type": Tag.OBJECT_TYPE,
    "Cryptographic Algorithm": Tag.CRYPTOGRAPHIC_ALGORITHM,
    "Cryptographic Length": Tag.CRYPTOGRAPHIC_LENGTH,
    "Cryptographic Usage Mask": Tag.CRYPTOGRAPHIC_USAGE_MASK,
    "State": Tag.STATE,
    "Initial Date": Tag.INITIAL_DATE,
    "Activation Date": Tag.ACTIVATION_DATE,
    "Deactivation Date": Tag.DEACTIVATION_DATE,
    "Compromise Date": Tag.COMPROMISE_DATE,
    "Destroy Date": Tag.DESTROY_DATE,
    "Application Specific Information": Tag.APPLICATION_SPECIFIC_INFORMATION,
}
NAMES: Final = {tag: name for name, tag in TAGS.items()}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute, apart from any version. name: as KMIP 1.x spells it, for example "Cryptographic Length"."""

    name: str
    type: Type
    value: Value = field(repr=False)

    @property
    def is_custom(self) -> bool:
        return self.name.startswith(CUSTOM)


def named(name: str) -> Attribute:
    """The Name of an object, as uninterpreted text."""
    kind = ttlv.enumeration(Tag.NAME_TYPE, UNINTERPRETED_TEXT)
    return Attribute("Name", Type.STRUCTURE, (ttlv.text(Tag.NAME_VALUE, name), kind))


def custom(name: str, value: str) -> Attribute:
    """A text attribute of ours: `x-keystrand-NAME`."""
    return Attribute(f"{CUSTOM}{VENDOR}-{name}", Type.TEXT_STRING, value)


def application(data: str) -> Attribute:
    """Application Specific Information in our namespace, for servers that take no custom attributes."""
    parts = ttlv.text(Tag.APPLICATION_NAMESPACE, VENDOR), ttlv.text(Tag.APPLICATION_DATA, data)
    return Attribute("Application Specific Information", Type.STRUCTURE, parts)


def name_of(attribute: Attribute) -> str:
    """The text of a Name, or of a text attribute. Raises PeerFault for another form."""
    item = Item(Tag.NAME, attribute.type, attribute.value)
    return item.need(Tag.NAME_VALUE).text if attribute.name == "Name" else item.text


# printing -------------------------------------------------------------------------------------------------------------


def print_attributes(attributes: Iterable[Attribute], version: Version) -> tuple[Item, ...]:
    """As they stand in a payload: several Attribute items in 1.x, one Attributes in 2.x."""
    if version >= V2_0:
        return (ttlv.structure(Tag.ATTRIBUTES, *map(_tagged, attributes)),)
    seen: Counter[str] = Counter()
    items = []
    for attribute in attributes:
        items.append(_wrapped(attribute, seen[attribute.name]))
        seen[attribute.name] += 1
    return tuple(items)


def print_template(attributes: Iterable[Attribute], version: Version) -> Item:
    """As they stand in a request that makes an object: a Template-Attribute in 1.x, Attributes in 2.x."""
    items = print_attributes(attributes, version)
    return items[0] if version >= V2_0 else ttlv.structure(Tag.TEMPLATE_ATTRIBUTE, *items)


def print_references(names: Iterable[str], version: Version) -> tuple[Item, ...]:
    """Names of attributes: texts in 1.x, references in 2.x."""
    return tuple(_reference(name) if version >= V2_0 else ttlv.text(Tag.ATTRIBUTE_NAME, name) for name in names)


def _wrapped(attribute: Attribute, index: int) -> Item:
    return ttlv.structure(
        Tag.ATTRIBUTE,
        ttlv.text(Tag.ATTRIBUTE_NAME, attribute.name),
        ttlv.integer(Tag.ATTRIBUTE_INDEX, index) if index else None,  # the first needs none
        Item(Tag.ATTRIBUTE_VALUE, attribute.type, attribute.value),
    )


def _tagged(attribute: Attribute) -> Item:
    if not attribute.is_custom:
        return Item(TAGS[attribute.name], attribute.type, attribute.value)
    value = Item(Tag.ATTRIBUTE_VALUE, attribute.type, attribute.value)
    return ttlv.structure(Tag.ATTRIBUTE, *_vendor_and_name(attribute.name), value)


def _reference(name: str) -> Item:
    if name.startswith(CUSTOM):
        return ttlv.structure(Tag.ATTRIBUTE_REFERENCE, *_vendor_and_name(name))
    return ttlv.enumeration(Tag.ATTRIBUTE_REFERENCE, TAGS[name])


def _vendor_and_name(name: str) -> tuple[Item, Item]:
    vendor, _, rest = name.removeprefix(CUSTOM).partition("-")
    return ttlv.text(Tag.VENDOR_IDENTIFICATION, vendor), ttlv.text(Tag.ATTRIBUTE_NAME, rest)


# parsing --------------------------------------------------------------------------------------------------------------


def parse_attributes(payload: Item, version: Version) -> tuple[Attribute, ...]:
    """All attributes of a payload. Raises BadRequest for one that we do not know, PeerFault for a broken one."""
    if version >= V2_0:
        holder = payload.first(Tag.ATTRIBUTES)
        return tuple(map(_from_tagged, holder)) if holder is not None else ()
    return tuple(map(_from_wrapped, payload.every(Tag.ATTRIBUTE)))


def parse_references(payload: Item, version: Version) -> tuple[str, ...]:
    """The names that a payload lists; one that we do not know is kept, and will match nothing."""
    if version >= V2_0:
        return tuple(map(_referred, payload.every(Tag.ATTRIBUTE_REFERENCE)))
    return tuple(item.text for item in payload.every(Tag.ATTRIBUTE_NAME))


def _from_wrapped(item: Item) -> Attribute:
    name, value = item.need(Tag.ATTRIBUTE_NAME).text, item.need(Tag.ATTRIBUTE_VALUE)
    if name not in TAGS and not name.startswith(CUSTOM):
        raise BadRequest(f"attribute {name[:64]!r} is not known here")
    return Attribute(name, value.type, value.value)


def _from_tagged(item: Item) -> Attribute:
    if item.tag == Tag.ATTRIBUTE:
        value = item.need(Tag.ATTRIBUTE_VALUE)
        return Attribute(_custom_name(item), value.type, value.value)
    if item.tag not in NAMES:
        raise BadRequest(f"attribute {item.tag:#08x} is not known here")
    return Attribute(NAMES[Tag(item.tag)], item.type, item.value)


def _referred(item: Item) -> str:
    if item.type is Type.STRUCTURE:
        return _custom_name(item)
    return NAMES[Tag(item.number)] if item.number in NAMES else f"{item.number:#08x}"


def _custom_name(item: Item) -> str:
    return f"{CUSTOM}{item.need(Tag.VENDOR_IDENTIFICATION).text}-{item.need(Tag.ATTRIBUTE_NAME).text}"
