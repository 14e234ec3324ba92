-- A gateway invoice as the newest delivery states it.
--
-- An invoice delivered again is one invoice: the latest arrival speaks, and within a file the last
-- line. Files that arrive in one night arrive in the order of their names.
--
-- grain: infery_invoice_id
-- sorted by: issued_at
with delivered as not materialized (
    select *, hash(infery_invoice_id) as id_hash,
    from raw.invoices
),

repeated as (  -- most are delivered once: only the others need be put in order
    select id_hash
    from delivered
    group by 1
    having count(*) > 1
),

newest as (
    select delivered.*
    from delivered
    semi join repeated using (id_hash)
    qualify row_number() over (
        partition by infery_invoice_id
        order by arrived_at desc, source_object, source_line desc
    ) = 1
),

deliveries as (
    select delivered.*
    from delivered
    anti join repeated using (id_hash)
    union all by name
    select * from newest
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
