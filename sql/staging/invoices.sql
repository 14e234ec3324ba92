-- A gateway invoice as the newest delivery states it.
--
-- An invoice delivered again is one invoice: the latest arrival speaks, and within a file the last
-- line. Files that arrive in one night arrive in the order of their names.
--
-- grain: infery_invoice_id
-- sorted by: issued_at
with delivered as not materialized (  -- noqa: ST03
    select *
    from raw.invoices
),

deliveries as (
    select *
    from newest_of(
        'delivered',
        infery_invoice_id,
        delivery_rank(infery_invoice_id, arrived_at, source_object, source_line)
    )
)

select
    infery_invoice_id,
    workspace_id,  -- null: the source names none
    kind,  -- subscription | topup
    issued_at,
    lower(currency) as currency,
    net_minor,
    vat_minor,
    total_minor,  -- net + VAT: what the member's workspace owes
    credits,  -- what the invoice buys
    payment_intent_id,  -- the gateway's own reference, where it has one
    stripe_invoice_id,  -- likewise
    lower(status) as status,  -- draft | open | paid | void | uncollectible
    pdf_url,
    receipt_url,
    source_object,
    source_line,
from deliveries
