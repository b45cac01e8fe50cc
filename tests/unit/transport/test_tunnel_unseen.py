"""A key that is in use at one end and never seen at the other, as when a daemon was restarted in between."""

from __future__ import annotations

import pytest

from keystrand.transport.tunnel.agreement import Action, End, Output, Pace, Report, Verb
from keystrand.transport.tunnel.messages import Message

PACE = Pace(rotate_s=10.0, hold_s=60.0, give_up_s=5.0, retry_s=1.0)
STEP_S = 0.5


class Pair:
    """Both ends, generation 4 in use at both; every action succeeds at once, but for the generation that is lost."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.now_s = 0.0
        self.ends = {
            role: End("t", role, PACE, current=4, highest=4, connected=True)  # type: ignore[arg-type]
            for role in ("initiator", "responder")
        }
        self.reports: list[tuple[str, Report]] = []
        self.linked = True
        self._letters: list[tuple[str, Message]] = []

    def _take(self, role: str, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Report):
                self.reports.append((role, output))
            elif isinstance(output, Action):
                gone = output.verb is Verb.CONFIRM and output.number == self.lost
                key_id = "k" if output.verb is Verb.DRAW else ""
                end = self.ends[role]
                later = end.done(output, self.now_s, key_id=key_id, problem="not there" if gone else "")
                self._later.extend((role, made) for made in later) if gone else self._take(role, later)
            elif self.linked:
                self._letters.append(("responder" if role == "initiator" else "initiator", output))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        self._later: list[tuple[str, Output]] = getattr(self, "_later", [])
        while self.now_s < end_s:
            self.now_s += STEP_S
            waiting, self._later = self._later, []
            for role, output in waiting:  # a daemon that was asked in vain is asked again a moment later
                self._take(role, [output])
            for role, end in self.ends.items():
                self._take(role, end.tick(self.now_s))
            while self._letters:
                role, letter = self._letters.pop(0)
                self._take(role, self.ends[role].hear(letter, self.now_s))

    def told(self, role: str, kind: str) -> list[int]:
        return [report.number for teller, report in self.reports if (teller, report.kind) == (role, kind)]


def test_a_key_that_the_other_end_never_sees_is_followed_by_a_fresh_one() -> None:
    pair = Pair(lost=5)
    pair.run(25.0)
    assert pair.told("initiator", "missed") == [5]
    assert pair.told("responder", "missed") == [5]
    assert {end.current for end in pair.ends.values()} == {6}
    assert not any(end.blocked for end in pair.ends.values())
    assert 6 in pair.told("initiator", "rotated")


def test_while_the_channel_is_down_the_key_in_use_is_not_given_up() -> None:
    pair = Pair(lost=5)
    pair.run(10.5)
    initiator = pair.ends["initiator"]
    assert initiator.coming is not None
    pair.linked = False
    for end in pair.ends.values():
        end.down(pair.now_s)
    pair.run(20.0)
    assert initiator.coming is not None
    assert pair.told("initiator", "missed") == []


@pytest.mark.parametrize("lost", [5, 6, 7])
def test_whichever_is_lost_the_ends_meet_again(lost: int) -> None:
    pair = Pair(lost=lost)
    pair.run(60.0)
    currents = {end.current for end in pair.ends.values()}
    assert len(currents) == 1
    assert currents.pop() > lost
    assert not any(end.blocked for end in pair.ends.values())
