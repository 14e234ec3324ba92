"""Planted accounts by the dozen: each case's status and rung, every row the oracle's, the credits
side too. What `proof.py` counts; one of each stands in the suite (`tests/sql`).
"""

import sys
import time
from collections import Counter
from pathlib import Path

from pipelines.models import Models

ITEMS = 2_000  # invoices and charges of each account


def run_many(first: int, accounts: int, models: Models) -> list[str]:
    """Plants `accounts` accounts; returns what docs/proof.md says of them, and of each that went
    wrong.
    """
    sys.path.insert(0, str(Path(__file__).parent / "sql"))  # as pytest finds these modules
    from planted_account import CASES, SECTION_6, plant
    from reconciliation_oracle import reconcile
    from reconciliation_worlds import TODAY, as_the_oracle_sees, reconciled
    from test_credit_backing import agrees
    from test_invoice_reconciliation import agrees_with_the_oracle

    began = time.monotonic()
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(first, first + accounts):
        world, truth = plant(seed=seed, count=ITEMS)
        try:
            found = reconciled(models, world, is_checked=True, with_credits=True)
            judged = {name: (row["status"], row["matched_by"]) for name, row in found.rows.items()}
            assert judged == truth, sorted(truth.items() - judged.items())[:3]
            agrees_with_the_oracle(found, reconcile(as_the_oracle_sees(world), TODAY))
            agrees(found, world)
        except AssertionError as error:
            wrong.append(f"- wrong: seed {seed}: {str(error)[:300]}")
            print(f"FAILED  planted: seed {seed}: {str(error)[:300]}", file=sys.stderr, flush=True)
        statuses.update(status for status, _ in truth.values())
        print(f"planted: seed {seed}, {statuses.total():,} rows", flush=True)
    return [
        f"Accounts of {ITEMS:,} invoices and charges. Each of {len(CASES)} causes is planted with",
        "the status and rung it must get, in Stripe's shapes before and since basil, every line of",
        f"section 6 of the specification among them ({len(SECTION_6)} lines, by name in",
        "`tests/sql/planted_account.py`). Each must get its status and rung, and no other row may;",
        "every column, role, movement of credits and backing must be that of two oracles written",
        "from the specification alone; every claim must hold.",
        "",
        "| accounts | rows | statuses | fewest rows of a status | wrong |",
        "| ---: | ---: | ---: | --- | ---: |",
        f"| {accounts} | {statuses.total():,} | {len(statuses)} | "
        f"{min(statuses.values()):,} {min(statuses, key=lambda name: statuses[name])} | "
        f"{len(wrong)} |",
        "",
        f"Seeds {first} to {first + accounts - 1}; {(time.monotonic() - began) / 60:.0f} minutes.",
        "",
        *wrong,
    ]
