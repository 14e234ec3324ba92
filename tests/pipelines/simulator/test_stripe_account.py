"""Our templates have the fields that Stripe's own examples have."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulator import stripe_account

FIXTURES = Path(__file__).parents[3].parent / "shared" / "data" / "stripe" / "fixtures.json"
BUILDERS = {
    "charge": stripe_account.charge,
    "refund": stripe_account.refund,
    "dispute": stripe_account.dispute,
    "balance_transaction": stripe_account.balance_transaction,
    "payment_intent": stripe_account.payment_intent,
    "invoice": stripe_account.invoice,
    "invoice_payment": stripe_account.invoice_payment,
    "credit_note": stripe_account.credit_note,
    "payout": stripe_account.payout,
    "customer": stripe_account.customer,
}


def fields(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Fields that one side has and the other has not, wherever both sides have an object."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict) and ours and theirs):
        return []
    odd = [f"{path}.{name}" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        odd += fields(ours[name], theirs[name], f"{path}.{name}")
    return odd


@pytest.mark.skipif(not FIXTURES.is_file(), reason="../shared with Stripe's examples is absent")
@pytest.mark.parametrize("kind", BUILDERS)
def test_an_object_has_the_fields_of_stripes_example(kind: str) -> None:
    example = json.loads(FIXTURES.read_text())[kind]

    assert fields(BUILDERS[kind](), example) == []


def test_a_template_is_not_changed_by_what_is_written_into_a_copy() -> None:
    stripe_account.charge()["outcome"]["type"] = "blocked"

    assert stripe_account.charge()["outcome"]["type"] == "authorized"


def test_the_net_follows_from_amount_and_fee() -> None:
    assert stripe_account.balance_transaction(amount=1000, fee=45)["net"] == 955
