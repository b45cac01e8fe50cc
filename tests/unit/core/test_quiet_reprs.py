"""Records that hold a secret as plain text or bytes do not show it when they are printed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import keystrand
from keystrand.transport.tls.control import Order
from keystrand.wire.device import BlockReady

SECRET = {"material", "psk", "pin", "passphrase", "password", "secret", "private_key"}
RECORDS = ("dataclass", "Struct", "NamedTuple", "Message")


def loud(tree: ast.Module) -> Iterator[str]:
    """Classes that generate their repr, with fields by such a name that are not kept out of it."""
    for record in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        made_by = " ".join(map(ast.unparse, [*record.decorator_list, *record.bases]))
        own = any(isinstance(node, ast.FunctionDef) and node.name == "__repr__" for node in record.body)
        if own or not any(word in made_by for word in RECORDS):
            continue
        for field in (node for node in record.body if isinstance(node, ast.AnnAssign)):
            plain = ast.unparse(field.annotation).split("[")[0].split(" |")[0] in ("str", "bytes", "bytearray")
            hidden = field.value is not None and "repr=False" in ast.unparse(field.value)
            if plain and not hidden and ast.unparse(field.target) in SECRET:
                yield f"{record.name}.{ast.unparse(field.target)}"


def test_I12_no_record_prints_its_secret() -> None:
    files = Path(keystrand.__file__).parent.rglob("*.py")
    assert [name for path in files for name in loud(ast.parse(path.read_text()))] == []


def test_a_record_that_would_print_it_is_found() -> None:
    assert [*loud(ast.parse("@dataclass\nclass Key:\n    key_id: str\n    material: bytes"))] == ["Key.material"]


def test_I12_an_order_to_the_proxy_and_a_block_are_quiet() -> None:
    block = dict.fromkeys(BlockReady.__struct_fields__, 0) | {"material": b"5ec4e7"}
    assert "5ec4e7" not in repr(Order(verb="prepare", psk="5ec4e7")) + repr(BlockReady(**block))
