-- A movement of the balance at Stripe, the payout it went out with, and what it belongs to: a
-- charge, and so an invoice and a workspace.
--
-- Amounts are in the currency of settlement; never add them to those of an invoice. A payout's own
-- movement is not among them.
--
-- grain: balance_transaction_id
with charged as (  -- what is behind a movement
    select charge_id as source_id, charge_id from staging.charges
    union all
    select refund_id as source_id, charge_id from staging.refunds where origin = 'api'
    union all
    select dispute_id as source_id, charge_id from staging.disputes where origin = 'api'
),

reported as (
    select balance_transaction_id, max(charge_id) as charge_id
    from raw.stripe_report_lines
    where charge_id is not null
    group by 1
),

movements as (
    select
        movements.*,
        coalesce(charged.charge_id, reported.charge_id) as charge_id,
    from staging.balance_transactions as movements
    left join charged using (source_id)
    left join reported using (balance_transaction_id)
    anti join staging.payouts as payouts on payouts.payout_id = movements.source_id
    where coalesce(movements.reporting_category, '') not in ('payout', 'payout_reversal')
),

linked as (
    select charge_id, invoice_id from marts.invoice_charges where role <> 'conflict'
)

select
    balance_transaction_id,  -- the movement, by Stripe's id
    payout_id,  -- the automatic payout it went out with; null: not yet, or a manual one
    movements.created_at,  -- UTC
    available_at,  -- when it may go out
    coalesce(reporting_category, type) as category,  -- charge | refund | dispute | fee | …
    movements.amount_minor,  -- gross, signed
    movements.fee_minor,  -- what Stripe kept of it
    movements.net_minor,  -- amount less fee: what goes to the bank
    movements.currency,
    source_id,  -- the object behind it
    charge_id,
    linked.invoice_id,  -- the gateway invoice the charge belongs to; null: none
    coalesce(invoices.workspace_id, ladders.claimed_workspace_id, charges.workspace_id)
        as workspace_id,  -- the invoice's; else what the charge claims
from movements
left join linked using (charge_id)
left join staging.charge_ladders as ladders using (charge_id)
left join staging.charges as charges using (charge_id)
left join staging.invoices as invoices on invoices.infery_invoice_id = linked.invoice_id
