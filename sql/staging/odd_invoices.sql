-- A gateway invoice of which there is more to tell than that one plain charge has paid it.
--
-- All others, of which there may be millions, are in staging.plain_invoices. By their hashes an
-- invoice too many may be counted uneven, and is judged as any odd one; never one too few, for
-- where two share a hash there are two invoices.
--
-- grain: infery_invoice_id
with counted as (
    select hash(infery_invoice_id) as id_hash, 0 as charge_count,
    from staging.invoices
    union all
    select hash(invoice_id) as id_hash, 1 as charge_count,
    from marts.invoice_charges
),

uneven as (  -- other than one invoice with one charge
    select id_hash
    from counted
    group by 1
    having count(*) <> 2 or sum(charge_count) <> 1
),

told as (
    select infery_invoice_id from staging.charge_ladders
    union all
    select invoice_id from marts.invoice_charges where role = 'conflict'
    union all
    select invoice_id from marts.invoice_charges semi join staging.charge_money using (charge_id)
    union all
    select infery_invoice_id from staging.stripe_invoice_claims
)

select infery_invoice_id  -- as in staging.invoices
from staging.invoices
semi join told using (infery_invoice_id)
union
select infery_invoice_id
from staging.invoices
semi join uneven on hash(invoices.infery_invoice_id) = uneven.id_hash
