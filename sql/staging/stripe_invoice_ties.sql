-- A Stripe invoice and a known gateway invoice that it is tied to, or in conflict about.
--
-- facts/reconciliation.md, section 3: named by rungs 4, 5 and 6, and by the settled or waiting
-- charges it was paid with, each of which names the invoice it belongs to. One id named, and it is
-- tied; several, and every known one is told so, and it is tied to none. Drafts are ignored.
--
-- grain: stripe_invoice_id, infery_invoice_id
with bills as (
    select * from staging.stripe_invoices where status <> 'draft'
),

claims as (
    select claims.*
    from staging.stripe_invoice_claims as claims
    semi join bills using (stripe_invoice_id)
),

named as (
    select stripe_invoice_id, infery_invoice_id, rung
    from claims
    where infery_invoice_id is not null
    union all
    select stripe_invoice_id, linked.invoice_id as infery_invoice_id, null as rung
    from staging.charge_stripe_invoices as paid
    semi join bills using (stripe_invoice_id)
    inner join staging.odd_charges as linked using (charge_id)
    where paid.told_by <> 'report' and linked.role in ('settled', 'waiting')
),

candidates as (
    select stripe_invoice_id, infery_invoice_id, min(rung) as rung
    from named
    group by 1, 2
),

counted as (
    select *, count(*) over (partition by stripe_invoice_id) as named_count
    from candidates
),

claimed as (
    select
        stripe_invoice_id,
        min(workspace_id) as first_workspace_id,
        max(workspace_id) as last_workspace_id,
    from claims
    group by 1
)

select
    counted.stripe_invoice_id,
    counted.infery_invoice_id,
    named_count = 1 as is_tied,  -- false: a conflict
    counted.rung,  -- the strongest that names it; null: only its charges do
    bills.created_at,
    bills.status,
    bills.is_bill,
    bills.currency,
    bills.currency <> invoices.currency as is_other_currency,  -- than the gateway invoice's
    coalesce(
        first_workspace_id <> invoices.workspace_id or last_workspace_id <> invoices.workspace_id,
        false
    ) as is_other_workspace,  -- one that it claims differs from the gateway invoice's
    bills.total_minor,
    bills.total_minor <> invoices.total_minor as is_other_total,
    bills.pre_payment_credit_notes_minor,
    bills.balance_applied_minor,
    bills.out_of_band_minor,
from counted
inner join bills using (stripe_invoice_id)
inner join staging.invoices as invoices using (infery_invoice_id)
left join claimed using (stripe_invoice_id)
