"""Which change of keys is which verb and which operation, and which keys a body means."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from keystrand.api import admin_forms as forms
from keystrand.core.register import Scope
from keystrand.core.states import Change, State
from keystrand.govern.roles import Operation

VERBS: Final = {
    "suspend": Change.SUSPEND,
    "resume": Change.RESUME,
    "revoke": Change.DEACTIVATE,
    "compromise": Change.COMPROMISE,
    "destroy": Change.DESTROY,
}
OPERATION: Final = {
    Change.SUSPEND: Operation.KEYS_SUSPEND,
    Change.RESUME: Operation.KEYS_RESUME,
    Change.DEACTIVATE: Operation.KEYS_REVOKE,
    Change.COMPROMISE: Operation.KEYS_COMPROMISE,
    Change.DESTROY: Operation.KEYS_DESTROY,
}
CHANGE_OF: Final = {operation: change for change, operation in OPERATION.items()}
# by criteria, these cannot be taken back and may concern every key of a site: nobody does them alone
DANGEROUS: Final = frozenset({Change.COMPROMISE, Change.DESTROY})


def scope_of(selection: forms.Criteria) -> Scope:
    fields = {
        name: value
        for name in ("tenant", "sae", "peer", "link", "source", "relay", "since_s", "until_s", "key_ids", "tags")
        if (value := getattr(selection, name)) is not UNSET
    }
    states = frozenset() if selection.states is UNSET else frozenset(State(name) for name in selection.states)
    return Scope(states=states, **fields)
