"""Everything that the service does by itself, as one table of named jobs: what, how often, when last, and how that went.

A tick runs those that are due, one after the other, each in a part of the transaction of its own: a job that fails takes
nothing of the others with it and is tried again at its next turn. Each does a bounded amount of work per run, so that whoever
waits for a key waits for no more than that; a job that has left some over is due at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from keystrand.core.errors import KeystrandError, StoreUnavailable, Tampered
from keystrand.kme.site import Site


@dataclass(frozen=True, slots=True)
class Task:
    """A job of the table. period_s: 0 means at every tick. run: does it, and says how many items it dealt with.

    portion: a run that dealt with so many has left some over, and goes on at the next tick; 0: a run is always whole.
    """

    name: str
    period_s: float
    run: Callable[[], int | None]
    portion: int = 0


@dataclass(slots=True)
class JobStatus:
    """How a job is doing, for doctor and metrics. Times are Unix seconds, 0 before the first run; items since the start."""

    name: str
    period_s: float
    runs: int = 0
    items: int = 0
    last_run_s: float = 0.0
    last_error: str = ""  # of the last run; "" when it went well


class Jobs:
    """The table of one site's service."""

    def __init__(self, site: Site, attempt: Callable[[Callable[[], object]], object], tasks: tuple[Task, ...]) -> None:
        self.site = site
        self._attempt = attempt
        self._tasks: Final[Mapping[str, Task]] = {task.name: task for task in tasks}
        assert len(self._tasks) == len(tasks), "two jobs of one name"
        self._status = {task.name: JobStatus(task.name, task.period_s) for task in tasks}
        self._due_s = dict.fromkeys(self._tasks, 0.0)  # monotonic

    def tick(self) -> bool:
        """Run what is due; whether some is left over, so that the next tick should not wait for long.

        Raises only what the store cannot do, which undoes the whole transaction.
        """
        now_s, is_done = self.site.clock.monotonic_s(), True
        for name, task in self._tasks.items():
            if now_s >= self._due_s[name]:
                has_more = self._has_more(task)
                self._due_s[name] = now_s if has_more else now_s + task.period_s
                is_done = is_done and not has_more
        return not is_done

    def _has_more(self, task: Task) -> bool:
        """Run a portion; whether it left some over."""
        before = self._status[task.name].items
        done = self.run(task.name).items - before
        return 0 < task.portion <= done

    def run(self, name: str) -> JobStatus:
        """Run one job now. Raises KeyError for a name that is not in the table."""
        task, status = self._tasks[name], self._status[name]
        status.runs += 1
        status.last_run_s = self.site.clock.now_s()
        try:
            items = self._attempt(task.run)
        except (StoreUnavailable, Tampered) as error:
            status.last_error = str(error)
            raise
        except KeystrandError as error:
            if not status.last_error:  # said once, until it has gone well again
                self.site.emit("job.failed", job=name, reason=str(error))
            status.last_error = str(error)
        else:
            status.items += items if isinstance(items, int) else 0
            status.last_error = ""
        return status

    def status(self) -> tuple[JobStatus, ...]:
        return tuple(self._status.values())
