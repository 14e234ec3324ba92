-- A gateway invoice of which there is more to tell than that one plain charge has paid it.
--
-- All others, of which there may be millions, are in staging.plain_invoices.
--
-- grain: infery_invoice_id
with told as (
    select infery_invoice_id from staging.charge_ladders
    union all
    select invoice_id from staging.crowded_invoices
    union all
    select invoice_id from marts.invoice_charges where role = 'conflict'
    union all
    select invoice_id from marts.invoice_charges semi join staging.charge_money using (charge_id)
    union all
    select infery_invoice_id from staging.stripe_invoice_ties
    union all
    select item_id from staging.reconciliation_words
),

unpaid as (
    select infery_invoice_id
    from staging.invoices
    anti join marts.invoice_charges as charges on charges.invoice_id = invoices.infery_invoice_id
)

select infery_invoice_id  -- as in staging.invoices
from staging.invoices
semi join told using (infery_invoice_id)
union
select infery_invoice_id from unpaid
