"""Nights of Stripe on which requests fail and the account does not hold still: seeded schedules,
each held against the account itself, and against nights that met no trouble. What
`test_stripe_faults.py` and `proof.py` count.

The SDK is the real one, with its own retries; only the wire is short: its HTTP client hands each
request to the local Stripe in this process.
"""

import json
import logging
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe
from pydantic import SecretStr
from starlette.requests import Request

from assets import stripe_api, stripe_rows
from assets.stripe_objects import STAMP, TABLES
from pipelines import contents
from pipelines.calendar import Clock
from pipelines.models import Models
from pipelines.settings import Settings, Stripe
from pipelines.simulator import stripe_account as made
from pipelines.simulator.stripe_account import Object
from pipelines.simulator.stripe_server import FAULTS, RESOURCES, respond
from pipelines.store import Draft, Store, StoreError

DAY = 86_400
FIRST = 1_790_000_000  # 2026-09-21, when a schedule begins
OUTAGE = 30  # requests in a row that fail: more than anybody's patience
API_TABLES = sorted(set(TABLES) - {"raw.stripe_report_lines"})


@dataclass
class Tally:
    """What became of many schedules."""

    schedules: int = 0
    requests: int = 0
    nights: int = 0
    outages: int = 0
    changes: int = 0  # while a night was reading
    objects: int = 0
    faults: Counter[str] = field(default_factory=Counter)


# ---- the account ----------------------------------------------------------------------------


class Account:
    """A Stripe account that lives: each change leaves the trail that it leaves at Stripe."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = FIRST
        self.objects: dict[str, list[Object]] = {
            kind: []
            for kind in (
                *("charge", "refund", "dispute", "balance_transaction", "payment_intent"),
                *("invoice", "invoice_payment", "credit_note", "payout", "customer"),
            )
        }
        self.served = made.account(self.objects, as_of=FIRST)
        self.count = 0
        for _ in range(3):
            self._add("customer", made.customer(id=self._id("cus"), created=self.now - 90 * DAY))

    def change(self) -> None:
        """One thing that happens; what can't happen now is something else."""
        self.now += self.rng.randrange(DAY)
        kinds: list[Callable[[], bool]] = [
            *[self._top_up] * 4,
            *[self._bill] * 3,
            *[self._settle, self._finalise, self._pay, self._void, self._delete_draft] * 2,
            *[self._refund, self._turn_refund, self._dispute, self._decide] * 2,
            *[self._note, self._void_note, self._pay_out, self._turn_payout] * 2,
        ]
        while not self.rng.choice(kinds)():
            pass

    def _id(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.rng.randrange(16**6):06x}{self.count:04}"

    def _add(self, kind: str, thing: Object) -> Object:
        """Objects become visible up to a day after the time they state, in any order."""
        late = self.rng.choice([0, 0, 0, self.rng.randrange(DAY)])
        thing["created"] = thing["created"] or self.now - late
        self.objects[kind].append(thing)
        return thing

    def _one(self, kind: str, holds: Callable[[Object], bool]) -> Object | None:
        found = [row for row in self.objects[kind] if holds(row)]
        return self.rng.choice(found) if found else None

    def _metadata(self) -> dict[str, str]:
        name = f"INF-{self.rng.randrange(50)}"
        return self.rng.choice([{}, {"infery_invoice_id": name, "workspace_id": "ws_1", "x": "y"}])

    def _customer(self, *, stays: bool = True) -> str:
        """Somebody, who may have changed the address for it; or somebody new. `stays`: what it is
        for can't be deleted before it is read: nothing else tells of a new address.
        """
        if self.rng.random() < 0.2:
            return str(self._add("customer", made.customer(id=self._id("cus")))["id"])
        row = self.rng.choice(self.objects["customer"])
        if self.rng.random() < 0.3:
            address = f"{self._id('mail')}@acme.example"
            row["email"] = address if stays else row["email"]
        return str(row["id"])

    def _move(self, source: str, category: str, amount: int) -> str:
        transaction = made.balance_transaction(
            id=self._id("txn"),
            amount=amount,
            fee=self.rng.randrange(40),
            exchange_rate=self.rng.choice([None, 0.79, 1.2345678]),
            reporting_category=category,
            source=source,
            type=category,
        )
        return str(self._add("balance_transaction", transaction)["id"])

    def _charge(self, amount: int, customer: str, status: str, **more: Any) -> Object:
        intent = self._add(
            "payment_intent",
            made.payment_intent(
                id=self._id("pi"),
                amount=amount,
                customer=customer,
                metadata=self._metadata(),
                status={"pending": "processing", "failed": "requires_payment_method"}.get(
                    status, "succeeded"
                ),
            ),
        )
        charge = made.charge(
            id=self._id(self.rng.choice(["ch", "py"])),
            amount=amount,
            amount_captured=amount if status == "succeeded" else 0,
            captured=status == "succeeded",
            customer=customer,
            metadata=self._metadata(),
            payment_intent=intent["id"],
            status="succeeded" if status == "authorised" else status,
            **more,
        )
        intent["latest_charge"] = charge["id"]
        if status == "succeeded":
            charge["balance_transaction"] = self._move(charge["id"], "charge", amount)
        return self._add("charge", charge)

    def _top_up(self) -> bool:
        status = self.rng.choice(["succeeded", "succeeded", "pending", "failed", "authorised"])
        self._charge(self.rng.randint(100, 9999), self._customer(), status)
        return True

    def _settle(self) -> bool:
        """A debit arrives or fails; an authorisation is captured, in part perhaps, or let go."""
        charge = self._one(
            "charge",
            lambda row: (
                row["status"] == "pending"
                or (row["status"] == "succeeded" and not row["captured"] and not row["refunded"])
            ),
        )
        if charge is None:
            return False
        intent = next(
            row for row in self.objects["payment_intent"] if row["id"] == charge["payment_intent"]
        )
        if self.rng.random() < 0.3:
            ended = {"status": "failed"} if charge["status"] == "pending" else {"refunded": True}
            charge |= ended
            intent["status"] = "canceled"
            return True
        taken = charge["amount"]
        charge |= {"status": "succeeded", "captured": True, "amount_captured": taken}
        charge["balance_transaction"] = self._move(charge["id"], "charge", taken)
        intent |= {"status": "succeeded", "amount_received": taken}
        return True

    def _bill(self) -> bool:
        lines = [
            made.invoice_line(id=self._id("il"), metadata=self._metadata())
            for _ in range(self.rng.choice([1, 2, 13]))
        ]
        self._add(
            "invoice",
            made.invoice(
                id=self._id("in"),
                customer=self._customer(stays=False),
                total=self.rng.randint(100, 9999),
                metadata=self._metadata(),
                lines={"object": "list", "data": lines, "has_more": False, "url": ""},
            ),
        )
        return True

    def _finalise(self) -> bool:
        bill = self._one("invoice", lambda row: row["status"] == "draft")
        if bill is None:
            return False
        bill |= {"status": "open", "number": self._id("N"), "ending_balance": 0}
        bill["status_transitions"] = bill["status_transitions"] | {"finalized_at": self.now}
        self._add(
            "invoice_payment",
            made.invoice_payment(
                id=self._id("inpay"), invoice=bill["id"], amount_requested=bill["total"]
            ),
        )
        return True

    def _payment_of(self, bill: Object) -> Object:
        rows = self.objects["invoice_payment"]
        return next(row for row in rows if row["invoice"] == bill["id"])

    def _pay(self) -> bool:
        bill = self._one("invoice", lambda row: row["status"] in ("open", "uncollectible"))
        if bill is None:
            return False
        if bill["status"] == "open" and self.rng.random() < 0.3:
            bill["status"] = "uncollectible"
            return True
        due = bill["total"] - bill["pre_payment_credit_notes_amount"]
        payment = self._payment_of(bill)
        if self.rng.random() < 0.2:
            payment["payment"] = {"type": "payment_record", "payment_record": self._id("pr")}
        else:
            charge = self._charge(due, bill["customer"], "succeeded")
            named = {"type": "payment_intent", "payment_intent": charge["payment_intent"]}
            payment["payment"] = named
        payment |= {"status": "paid", "amount_paid": due}
        bill |= {"status": "paid", "amount_paid": due, "amount_remaining": 0}
        return True

    def _void(self) -> bool:
        bill = self._one("invoice", lambda row: row["status"] == "open")
        if bill is None:
            return False
        bill["status"] = "void"
        self._payment_of(bill)["status"] = "canceled"
        return True

    def _delete_draft(self) -> bool:
        bill = self._one("invoice", lambda row: row["status"] == "draft")
        if bill is None or self.rng.random() < 0.5:
            return False
        self.objects["invoice"].remove(bill)
        return True

    def _note(self) -> bool:
        bill = self._one(
            "invoice", lambda row: row["status"] in ("open", "paid") and row["total"] > 50
        )
        if bill is None:
            return False
        place = "pre_payment" if bill["status"] == "open" else "post_payment"
        note = made.credit_note(id=self._id("cn"), invoice=bill["id"], total=10, type=place)
        note[f"{place}_amount"] = 10
        bill[f"{place}_credit_notes_amount"] += 10
        self._add("credit_note", note)
        return True

    def _void_note(self) -> bool:
        opened = {row["id"]: row for row in self.objects["invoice"] if row["status"] == "open"}
        note = self._one(
            "credit_note",
            lambda row: (
                row["status"] == "issued"
                and row["type"] == "pre_payment"
                and row["invoice"] in opened
            ),
        )
        if note is None:
            return False
        note |= {"status": "void", "voided_at": self.now}
        opened[note["invoice"]]["pre_payment_credit_notes_amount"] -= 10
        return True

    def _refund(self) -> bool:
        charge = self._one(
            "charge", lambda row: row["captured"] and row["amount_refunded"] < row["amount"]
        )
        if charge is None:
            return False
        amount = self.rng.randint(1, charge["amount"] - charge["amount_refunded"])
        refund = made.refund(
            id=self._id(self.rng.choice(["re", "pyr"])),
            amount=amount,
            charge=charge["id"],
            payment_intent=charge["payment_intent"],
            status=self.rng.choice(["succeeded", "succeeded", "pending", "requires_action"]),
        )
        refund["balance_transaction"] = self._move(refund["id"], "refund", -amount)
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self._add("refund", refund)
        return True

    def _turn_refund(self) -> bool:
        refund = self._one("refund", lambda row: row["status"] != "failed")
        if refund is None:
            return False
        if refund["status"] != "succeeded" and self.rng.random() < 0.6:
            refund["status"] = "succeeded"
            return True
        charge = next(row for row in self.objects["charge"] if row["id"] == refund["charge"])
        refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
        self._move(refund["id"], "refund_failure", refund["amount"])
        charge |= {"amount_refunded": charge["amount_refunded"] - refund["amount"]}
        charge["refunded"] = False
        return True

    def _dispute(self) -> bool:
        charge = self._one("charge", lambda row: bool(row["captured"]))
        if charge is None:
            return False
        dispute = made.dispute(
            id=self._id(self.rng.choice(["dp", "du"])),
            amount=charge["amount"],
            charge=charge["id"],
            status=self.rng.choice(["needs_response", "warning_needs_response"]),
        )
        charge["disputed"] = True
        if dispute["status"] == "needs_response":
            self._move(dispute["id"], "dispute", -charge["amount"])
        self._add("dispute", dispute)
        return True

    def _decide(self) -> bool:
        dispute = self._one(
            "dispute", lambda row: row["status"] not in ("won", "lost", "warning_closed")
        )
        if dispute is None:
            return False
        if dispute["status"].startswith("warning"):
            dispute["status"] = self.rng.choice(["warning_closed", "needs_response"])
        else:
            dispute["status"] = self.rng.choice(["won", "lost", "under_review"])
        if dispute["status"] == "won":
            self._move(dispute["id"], "dispute_reversal", dispute["amount"])
        return True

    def _pay_out(self) -> bool:
        waiting = [
            row
            for row in self.objects["balance_transaction"]
            if "_payout" not in row and row["type"] != "payout" and self.rng.random() < 0.7
        ]
        if not waiting:
            return False
        amount = sum(row["net"] for row in waiting)
        payout = made.payout(
            id=self._id("po"),
            amount=amount,
            arrival_date=self.now + 2 * DAY,
            automatic=self.rng.random() < 0.8,
            reconciliation_status="in_progress",
            status="pending",
        )
        if payout["automatic"]:
            for row in waiting:
                row["_payout"] = payout["id"]
        else:
            payout["reconciliation_status"] = "not_applicable"
        payout["balance_transaction"] = self._move(payout["id"], "payout", -amount)
        self._add("payout", payout)
        return True

    def _turn_payout(self) -> bool:
        payout = self._one("payout", lambda row: row["status"] != "failed")
        if payout is None:
            return False
        if payout["status"] == "paid":
            if self.rng.random() < 0.7:
                return False
            payout |= {"status": "failed", "failure_code": "account_closed"}
            self._move(payout["id"], "payout_reversal", payout["amount"])
        else:
            payout["status"] = {"pending": "in_transit"}.get(payout["status"], "paid")
            if payout["automatic"] and payout["status"] == "paid":
                payout["reconciliation_status"] = "completed"
        return True

    def truth(self) -> dict[str, set[str]]:
        """What raw must hold in the end, as texts, from the objects themselves."""
        automatic = {row["id"] for row in self.objects["payout"] if row["automatic"]}
        moves = {row["id"]: row for row in self.objects["balance_transaction"]}
        truth = {}
        for resource in stripe_rows.RESOURCES:
            rows = []
            for thing in self.objects[RESOURCES[resource.name].kind]:
                stated = thing
                if resource is stripe_rows.REFUNDS:
                    stated = thing | {"balance_transaction": moves[thing["balance_transaction"]]}
                row = resource.row(stated, True)
                if thing.get("_payout") in automatic:
                    row["payout_id"] = thing["_payout"]
                rows.append(row)
            truth[resource.table] = {_text(row) for row in rows}
        return truth


def _text(row: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in row.items() if name not in STAMP}
    return json.dumps(kept, default=str, sort_keys=True)


# ---- the wire -------------------------------------------------------------------------------


class Wire(stripe.HTTPClient):
    """The SDK's HTTP client, whose other end is the local Stripe in this process."""

    name = "local"

    def __init__(self, account: Account, tally: Tally, turns: Callable[[], str]) -> None:
        super().__init__()
        self.account, self.tally, self.turns = account, tally, turns

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,  # noqa: ARG002
        *,
        _usage: list[str] | None = None,
    ) -> tuple[Any, int, Mapping[str, str]]:
        fault = self.turns()
        self.tally.requests += 1
        if fault != "ok":
            self.tally.faults[fault] += 1
        if fault in ("slow", "cut"):
            raise stripe.APIConnectionError(f"{fault} (local)", should_retry=fault == "slow")
        place = urlsplit(url)
        scope = {
            "type": "http",
            "method": method.upper(),
            "path": place.path,
            "query_string": place.query.encode(),
            "headers": [
                (name.lower().encode(), str(value).encode())
                for name, value in (headers or {}).items()
            ],
        }
        answer = respond(self.account.served, Request(scope), fault)
        return bytes(answer.body), answer.status_code, dict(answer.headers)

    def close(self) -> None:
        pass


@dataclass
class Turns:
    """What each request meets: a fault, a change of the account right before it, or an outage."""

    rng: random.Random
    account: Account
    tally: Tally
    share: float = 0.0  # of requests that meet a fault
    moving: float = 0.0  # of requests before which something happens
    outage_in: int | None = None  # requests from now
    in_a_row: int = 0

    def __call__(self) -> str:
        if self.outage_in is not None:
            self.outage_in -= 1
            if -OUTAGE < self.outage_in <= 0:
                return "503"
        if self.rng.random() < self.moving:
            self.account.change()
            self.tally.changes += 1
        if self.rng.random() < self.share and self.in_a_row < 2:
            self.in_a_row += 1
            return self.rng.choice(sorted(FAULTS.keys() - {"ok"}))
        self.in_a_row = 0
        return "ok"


# ---- houses ---------------------------------------------------------------------------------


class StripeHouse:
    """A house that lands Stripe, and nothing else."""

    def __init__(self, folder: Path, models: Models) -> None:
        self.folder, self.models = folder, models
        (folder / "spool").mkdir(parents=True)
        (folder / "data").mkdir()
        key = Stripe(api_base="http://stripe.local", api_key=SecretStr("rk_live_1"))
        self.settings = Settings(folder=folder, stripe=key)

    def night(self, account: Account, number: int, turns: Turns, tally: Tally) -> None:
        """Raises StoreError when Stripe was away for too long; nothing is published then."""
        at = datetime(2026, 11, 20) + timedelta(days=number)
        draft = self._draft()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    stripe,
                    "RequestsClient",
                    lambda timeout: Wire(account, tally, turns),  # noqa: ARG005
                )
                stripe_api.land(draft, self.settings, Clock(as_of=at, arrived_at=at))
            if draft.is_changed:
                draft.publish(at)
        finally:
            draft.close()

    def _draft(self) -> Draft:
        return Draft(Store(self.settings.root), self.folder / "spool", self.models.bind)

    def objects(self) -> dict[str, list[str]]:
        """The bytes of each table, by the hashes of its files."""
        snapshot = Store(self.settings.root).snapshot()
        return {
            table: [item.sha256 for part in parts.values() for item in part.objects]
            for table, parts in (snapshot.tables if snapshot else {}).items()
        }

    def state(self, tally: Tally) -> dict[str, set[str]]:
        """Each table as it stands: its newest versions as texts, whenever they arrived. Raises
        AssertionError where a version says what the one before it said.
        """
        draft = self._draft()
        state: dict[str, set[str]] = {}
        for table in API_TABLES:
            versions: list[dict[str, Any]] = []
            if draft.partitions(table):
                versions = draft.query(
                    f"select * from {table} order by arrived_at, record_sha256"
                ).to_pylist()
            newest: dict[str, str] = {}
            for row in versions:
                text = _text(row)
                name = next(iter(row.values()))
                assert newest.get(name) != text, f"{table}: {name} was kept twice"
                newest[name] = text
            tally.objects += len(newest)
            state[table] = set(newest.values())
            assert len(state[table]) == len(newest), f"{table}: one object under two ids"
        draft.close()
        return state


# ---- schedules ------------------------------------------------------------------------------


def run_still(seed: int, folder: Path, models: Models, tally: Tally) -> None:
    """Nights on which requests fail while the account holds still: raw must have the very bytes of
    nights on which none failed. Raises AssertionError, naming the seed.
    """
    rng = random.Random(f"{seed}/still")
    account = Account(rng)
    faulty, calm = StripeHouse(folder / "faulty", models), StripeHouse(folder / "calm", models)
    for number in range(2):
        for _ in range(rng.randint(3, 20)):
            account.change()
        account.now += rng.randrange(4 * DAY)
        turns = Turns(rng, account, tally, share=rng.choice([0.1, 0.3, 0.6]))
        faulty.night(account, number, turns, tally)
        calm.night(account, number, Turns(rng, account, tally), tally)
        tally.nights += 2
        assert faulty.objects() == calm.objects(), f"seed {seed}, still: night {number} differs"
    _compare(faulty.state(tally), account.truth(), f"seed {seed}, still")


def run_moving(seed: int, folder: Path, models: Models, tally: Tally) -> None:
    """Nights during which objects come, change and go, requests fail, and Stripe may be away; then
    one on which they hold still. Every table must be what the account holds in the end. Raises
    AssertionError, naming the seed.
    """
    rng = random.Random(f"{seed}/moving")
    account = Account(rng)
    house = StripeHouse(folder / "moving", models)
    for number in range(rng.choice([1, 2, 2, 3])):
        for _ in range(rng.randint(0, 20)):
            account.change()
        turns = Turns(rng, account, tally, share=rng.choice([0.0, 0.2, 0.5]))
        turns.moving = rng.choice([0.05, 0.2])
        if rng.random() < 0.3:
            turns.outage_in = rng.randint(1, 60)
        tally.nights += 1
        try:
            house.night(account, number, turns, tally)
        except StoreError:
            tally.outages += 1
        account.now += rng.randrange(4 * DAY)
    house.night(account, 10, Turns(rng, account, tally, share=0.3), tally)
    tally.nights += 1
    _compare(house.state(tally), account.truth(), f"seed {seed}, moving")


def _compare(found: dict[str, set[str]], truth: dict[str, set[str]], where: str) -> None:
    for table in API_TABLES:
        # Of a draft that was deleted after it had been read, raw goes on telling.
        kept = {text for text in found[table] if '"status": "deleted"' not in text}
        missed, other = truth[table] - kept, kept - truth[table]
        assert not missed, f"{where}, {table}: missed {sorted(missed)}, has {sorted(other)}"
        assert not other, f"{where}, {table}: has besides {sorted(other)}"


def run_schedule(seed: int, folder: Path, models: Models, tally: Tally) -> None:
    """One schedule of a seed: the even ones hold still."""
    shutil.rmtree(folder, ignore_errors=True)
    tally.schedules += 1
    with quick(seed):
        (run_moving if seed % 2 else run_still)(seed, folder, models, tally)


def quick(seed: int) -> Any:
    """No waiting; and lists so short that three pages make one, and some are cut into windows."""

    def patched() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stripe_api, "FIRST_WAIT_SECONDS", 0.0)
            patch.setattr(stripe_api, "PAGE", 3 + seed % 7)
            patch.setattr(stripe_api, "WINDOW", (15, 40, 10_000)[seed // 2 % 3])
            patch.setattr("stripe._http_client.HTTPClient.INITIAL_DELAY", 0.0)
            patch.setattr("stripe._http_client.HTTPClient.MAX_DELAY", 0.0)
            patch.setattr(logging.getLogger("meterhouse.land"), "disabled", True)
            yield

    from contextlib import contextmanager

    return contextmanager(patched)()


def run_many(first: int, schedules: int, folder: Path) -> list[str]:
    """Runs `schedules`; returns what docs/proof.md says of them, and of each that went wrong."""
    tally = Tally()
    wrong: list[str] = []
    models = contents.models()
    began = time.monotonic()
    for seed in range(first, first + schedules):
        try:
            run_schedule(seed, folder / "schedule", models, tally)
        except Exception as error:  # noqa: BLE001  (whatever stopped a schedule is its result)
            said = f"seed {seed}: {type(error).__name__}: {str(error)[:300]}"
            wrong.append(f"- wrong: {said}")
            print(f"FAILED  stripe: {said}", file=sys.stderr, flush=True)
        if (seed - first) % 100 == 99:
            print(f"stripe: {seed - first + 1} of {schedules}", flush=True)
    met = ", ".join(f"{count} {name}" for name, count in sorted(tally.faults.items()))
    return [
        "A Stripe account lives: charges, debits that settle, refunds that fail, disputes, drafts,",
        "invoices, credit notes and payouts come, change and go by what is drawn from the seed,",
        "each leaving the trail that it leaves at Stripe; some become visible a day late. Nights",
        "read it through the real SDK. On even seeds requests fail while the account holds still:",
        "raw must have the very bytes of nights on which none failed. On odd seeds the account",
        "changes between two pages as well, and Stripe may be away for a whole night. After a",
        "night on which it holds still, every table must say of every object what the account",
        "says, and no version of an object may repeat the one before it.",
        "",
        "| schedules | nights | requests | faults met | changes mid-list | outages | wrong |",
        "| ---: | ---: | ---: | --- | ---: | ---: | ---: |",
        f"| {tally.schedules} | {tally.nights} | {tally.requests} | {met} | {tally.changes} | "
        f"{tally.outages} | {len(wrong)} |",
        "",
        f"Seeds {first} to {first + schedules - 1}; {(time.monotonic() - began) / 60:.0f} minutes.",
        "",
        *wrong,
    ]
