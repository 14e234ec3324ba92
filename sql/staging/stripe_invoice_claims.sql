-- What one rung of the ladder says of a Stripe invoice: the gateway invoice it names, the workspace
-- it claims, or both.
--
-- facts/reconciliation.md, section 3, rungs 4 to 6: its own metadata; the metadata of its
-- subscription and of its lines; a gateway invoice that refers to it (which may be of an invoice
-- that was never read).
--
-- grain: stripe_invoice_id, rung, infery_invoice_id?, workspace_id?
with stated as (
    select stripe_invoice_id, 4 as rung, metadata
    from staging.stripe_invoices
    union all
    select stripe_invoice_id, 5 as rung, subscription_metadata as metadata
    from staging.stripe_invoices
    union all
    select stripe_invoice_id, 5 as rung, unnest(json_extract(line_metadata, '$[*]')) as metadata
    from staging.stripe_invoices
),

claims as (
    select
        stripe_invoice_id,
        rung,
        trimmed(json_extract_string(metadata, '$.infery_invoice_id')) as infery_invoice_id,
        trimmed(json_extract_string(metadata, '$.workspace_id')) as workspace_id,
    from stated
    where metadata is not null and metadata <> '{}'
)

select distinct
    stripe_invoice_id,
    rung,  -- 4 | 5 | 6
    infery_invoice_id,  -- known to the gateway or not; null: claims a workspace only
    workspace_id,  -- can only contradict, never choose
from claims
where infery_invoice_id is not null or workspace_id is not null
union all
select stripe_invoice_id, 6 as rung, infery_invoice_id, null as workspace_id,
from staging.invoices
where stripe_invoice_id is not null
