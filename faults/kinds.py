"""What can run beside the orders."""

from __future__ import annotations

from faults.beside import Kind
from faults.distributions.faults import DISTRIBUTION_FAULTS
from faults.distributions.side import DistributionSide
from faults.jobs.faults import JOB_FAULTS
from faults.jobs.side import JobSide
from faults.transfers.faults import TRANSFER_FAULTS
from faults.transfers.side import TransferSide
from faults.verdicts.faults import VERDICT_FAULTS
from faults.verdicts.side import PROCESS, VerdictSide
from faults.wallet.accounts import ADMIN_PASSWORD
from faults.wallet.client import GATEWAY_TOKEN

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
    definition="of money that was sent beside the orders, among ten accounts of which one has half of all: lost "
    "(acknowledged and not there), unended, wrong (another sender, receiver, amount or end than asked for), "
    "doubled (two for one Idempotency-Key, or more than were asked for), untold and told_twice (notifications of "
    "transfers), broken (places where the audit finds a rule broken), unserved (no more is accepted)",
)
DISTRIBUTIONS = Kind(
    name="distributions",
    title="Distributions",
    make=DistributionSide,
    modules={"wallet": ()},
    environment={
        "TANDEM_WALLET_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "TANDEM_WALLET_GATEWAY_TOKEN": GATEWAY_TOKEN,
    },
    faults=DISTRIBUTION_FAULTS,
    figures=("given", "received", "refused", "not_begun"),
    columns={
        "lost": ("lost",),
        "not\nended": ("unended",),
        "wrong": ("wrong",),
        "done\ntwice": ("doubled",),
        "sums\nwrong": ("unequal", "crowds"),
        "notices\nnot 1": ("untold", "told_twice"),
        "rules\nbroken": ("broken",),
        "un-\nserved": ("unserved",),
    },
    definition="of amounts that were given beside the orders, in three shares for which six users ask at once: "
    "lost (a distribution, or a share that somebody was told to have, that is not there), unended (receipts), "
    "wrong (another share than told, one of the giver's or of somebody who was refused, nothing left where "
    "something is, a link to another outcome), doubled (two distributions or receipts for one key, two shares of "
    "one user), unequal (shares that are not the amount, or another given back than nobody took), crowds (of "
    "1,500 who ask for 1,000 shares: not 1,000 different users who have one and were told so, or not 500 who were "
    "told that nothing is left, or a sum that is not the amount), untold and "
    "told_twice (notifications of closed distributions), broken (places where the audit finds a rule broken), "
    "unserved (nothing is given or received any more)",
)
VERDICTS = Kind(
    name="verdicts",
    title="Verdicts",
    make=VerdictSide,
    modules={PROCESS: ()},
    faults=VERDICT_FAULTS,
    figures=("evaluated", "by_batch"),
    columns={
        "un-\njudged": ("unjudged",),
        "not\ntold": ("untold",),
        "told\ntwice": ("told_twice",),
        "wrong": ("wrong",),
        "jobs not\nended": ("unended",),
        "jobs\nfailed": ("failed",),
        "list\nwrong": ("lists",),
    },
    definition="of the verdicts on all orders, and on those of yesterday that a fault keeps for the night's "
    "batch: unjudged (orders without one), untold and told_twice (orders of which the order service was told "
    "none, or more than one), wrong (told another than there is), unended and failed (jobs of the fraud service), "
    "lists (another threat list in force than should be, or not one alert when it could not be fetched)",
)
KINDS = (JOBS, TRANSFERS, DISTRIBUTIONS, VERDICTS)
