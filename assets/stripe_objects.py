"""What the house keeps of a Stripe charge, refund and dispute, whichever way it came; both Stripe
sources write through here.

Only these typed columns reach the disk: no billing details, no names, no cards, no evidence, and of
the metadata only the two keys that the ladder reads (facts/reconciliation.md, section 3). Lands
nothing by itself.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pipelines import tabular
from pipelines.store import Draft, RawTable

METADATA_KEYS = ("infery_invoice_id", "workspace_id")

ORIGIN = {"origin": ("varchar", "who told: api | csv")}
STAMP = {
    "record_sha256": (
        "varchar",
        "of the typed record, without its arrival: equal records are the same version",
    ),
    "arrived_at": ("timestamp", "UTC, wall clock at landing"),
}
METADATA = {
    "metadata": (
        "varchar",
        "JSON object; only the keys infery_invoice_id and workspace_id are kept",
    )
}

TABLES = {
    "raw.stripe_charges": RawTable(
        "A Stripe charge as it stood when it was read; a new row whenever it has changed.",
        {"charge_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: a test charge; null: the export does not say"),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "succeeded | pending | failed"),
            "amount_minor": ("bigint", "asked for or authorised"),
            "amount_captured_minor": ("bigint", "taken"),
            "amount_refunded_minor": ("bigint", "Stripe's own sum, capture reversals included"),
            "currency": ("varchar", "lower-case ISO code"),
            "captured": ("boolean", ""),
            "refunded": ("boolean", "wholly refunded, or an authorisation let go"),
            "disputed": ("boolean", ""),
            "payment_intent_id": ("varchar", ""),
            "stripe_invoice_id": ("varchar", "before basil (2025-03-31), and in exports"),
            "customer_id": ("varchar", ""),
            "balance_transaction_id": ("varchar", ""),
            "description": ("varchar", ""),
            "receipt_url": ("varchar", ""),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_refunds": RawTable(
        "A Stripe refund as it stood when it was read; a new row whenever it has changed.",
        {"refund_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": (
                "boolean",
                "the mode of the key it was read with: a Refund does not say its own",
            ),
            "charge_id": ("varchar", ""),
            "payment_intent_id": ("varchar", ""),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "pending | requires_action | succeeded | failed | canceled"),
            "amount_minor": ("bigint", ""),
            "currency": ("varchar", "lower-case ISO code"),
            "failure_reason": ("varchar", ""),
            "reason": ("varchar", ""),
            "reporting_category": ("varchar", "of its balance transaction; null: unknown"),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_disputes": RawTable(
        "A Stripe dispute as it stood when it was read; a new row whenever it has changed.",
        {
            "dispute_id": (
                "varchar",
                "Stripe's id; csv:dispute:<charge> for one shown beside a charge in an export",
            )
        }
        | ORIGIN
        | {
            "livemode": ("boolean", ""),
            "charge_id": ("varchar", ""),
            "payment_intent_id": ("varchar", ""),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "Stripe's word"),
            "amount_minor": ("bigint", ""),
            "currency": ("varchar", "lower-case ISO code"),
            "reason": ("varchar", ""),
        }
        | METADATA
        | STAMP,
    ),
}


def kept_metadata(stated: Mapping[str, Any] | None) -> str:
    """The two keys of the metadata that the ladder reads, as a JSON object."""
    return json.dumps(
        {key: stated[key] for key in METADATA_KEYS if stated and stated.get(key) is not None}
    )


def append_changed(
    draft: Draft, table: str, rows: Iterable[Mapping[str, Any]], arrived_at: datetime
) -> list[dict[str, Any]]:
    """Appends the records that differ from the version raw holds of them (by id and origin);
    returns those appended.

    Reading what has not changed appends nothing at all, so a second night on the same Stripe
    changes no byte. Of several records of one id the last stands.
    """
    columns = {name: kind for name, (kind, _) in TABLES[table].columns.items()}
    key = next(iter(columns))
    stated: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        kept: dict[str, Any] = {name: row.get(name) for name in columns if name not in STAMP}
        text = json.dumps(kept, default=str, sort_keys=True)
        kept["record_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        kept["arrived_at"] = arrived_at
        stated[(kept[key], kept["origin"])] = kept
    if not stated:
        return []
    current = draft.query(
        f"select {key}, origin, record_sha256 from {table} "
        f"where {key} in (select unnest($ids::varchar[])) "
        "qualify row_number() over "
        f"(partition by {key}, origin order by arrived_at desc, record_sha256) = 1",
        ids=sorted({name for name, _ in stated}),
    ).to_pylist()
    known = {(row[key], row["origin"]): row["record_sha256"] for row in current}
    changed = [
        row for name, row in sorted(stated.items()) if known.get(name) != row["record_sha256"]
    ]
    if changed:
        draft.append(table, tabular.arrow(changed, columns))
    return changed
