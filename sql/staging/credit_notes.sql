-- A Stripe credit note as it stands now, of the warehouse's mode.
--
-- Only what lowered an invoice before it was paid enters a sum (facts/reconciliation.md, section
-- 4), and the invoice says that itself; the notes are held against it.
--
-- grain: credit_note_id
select
    credit_note_id,
    created_at,
    status,  -- issued | void
    type,  -- pre_payment | post_payment | mixed
    stripe_invoice_id,
    lower(currency) as currency,
    total_minor,
    case
        when status = 'void' then 0
        when pre_payment_minor is not null then pre_payment_minor
        when type = 'pre_payment' then total_minor
        when type = 'post_payment' then 0
    end as pre_payment_minor,  -- what lowered the invoice; null: not known
from raw.stripe_credit_notes
where coalesce(livemode, $stripe_livemode) = $stripe_livemode
qualify version_rank(credit_note_id, origin, arrived_at, record_sha256) = 1
