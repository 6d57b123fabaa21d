"""What a check of the audit chain has to say."""

from dataclasses import asdict, dataclass, field
from typing import Final, Literal, TypeAlias

# Every fault counts; so many are kept to be shown.
_SHOWN: Final = 100

Fault: TypeAlias = Literal[
    "event-changed",
    "event-removed",
    "event-inserted",
    "batch-changed",
    "batch-missing",
    "batch-forged",
    "chain-truncated",
    "checkpoint-broken",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, with the event or the batch it is about. `sentence` says it to a person."""

    fault: Fault
    sentence: str
    event_id: int | None = None
    batch: int | None = None


@dataclass(slots=True)
class Verdict:
    """What a check of the whole chain found. `findings` holds the first of `faults`."""

    batches: int = 0
    events: int = 0
    pruned_batches: int = 0
    pruned_events: int = 0
    unsealed_events: int = 0
    unsealed_since: str | None = None
    checkpoint: str | None = None
    faults: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether everything sealed is there as it was sealed."""
        return not self.faults

    def add(self, finding: Finding) -> None:
        """Counts a fault, and keeps it while there is room."""
        self.faults += 1
        if len(self.findings) < _SHOWN:
            self.findings.append(finding)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"intact": self.intact, **asdict(self)}
