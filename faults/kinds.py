"""What can run beside the orders."""

from __future__ import annotations

from faults.beside import Kind
from faults.jobs.faults import JOB_FAULTS
from faults.jobs.side import JobSide
from faults.transfers.faults import TRANSFER_FAULTS
from faults.transfers.side import ADMIN_PASSWORD, TransferSide

JOBS = Kind(
    name="jobs",
    title="Jobs",
    make=JobSide,
    modules={name: ["faults.jobs.service"] for name in ("jobs", "jobs-consumer", "jobs-worker")},
    faults=JOB_FAULTS,
    figures=("jobs", "steps", "firings"),
    columns={
        "lost": ("lost",),
        "not\nended": ("unended",),
        "wrong": ("wrong",),
        "effects\nnot 1": ("without_effect", "doubled", "stray"),
        "firings\nnot 1": ("missed", "fired_twice"),
        "un-\nserved": ("unserved",),
    },
    definition="of graphs that were submitted beside the orders, and of a schedule: lost (acknowledged and not "
    "there), unended, wrong (another end or result than the graph says), without_effect, doubled and stray "
    "(effects of steps; a join that fired twice is among the doubled), missed, fired_twice, unserved (no more is "
    "acknowledged)",
)
TRANSFERS = Kind(
    name="transfers",
    title="Transfers",
    make=TransferSide,
    modules={"wallet": ()},
    environment={"TANDEM_WALLET_ADMIN_PASSWORD": ADMIN_PASSWORD, "TANDEM_TRANSFER_FEES": "0:0+0,100:1+100"},
    faults=TRANSFER_FAULTS,
    figures=("transfers", "completed", "taken_back"),
    columns={
        "lost": ("lost",),
        "not\nended": ("unended",),
        "wrong": ("wrong",),
        "done\ntwice": ("doubled",),
        "notices\nnot 1": ("untold", "told_twice"),
        "rules\nbroken": ("broken",),
        "un-\nserved": ("unserved",),
    },
    definition="of money that was sent beside the orders, among nine accounts of which one has half of all: lost "
    "(acknowledged and not there), unended, wrong (another sender, receiver, amount or end than asked for), "
    "doubled (two for one Idempotency-Key, or more than were asked for), untold and told_twice (notifications of "
    "transfers), broken (places where the audit finds a rule broken), unserved (no more is accepted)",
)
KINDS = (JOBS, TRANSFERS)
