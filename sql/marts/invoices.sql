-- A gateway invoice (Billing → History), with the name of its workspace.
--
-- grain: invoice_id
select
    infery_invoice_id as invoice_id,  -- the gateway's infery_invoice_id
    workspace_id,
    workspaces.name as workspace_name,  -- null: the directory does not know it
    kind,  -- subscription | topup
    issued_at,
    currency,  -- lower-case ISO code of every amount beside it
    net_minor,  -- minor units
    vat_minor,  -- the customer's VAT, minor units
    total_minor,  -- net + VAT
    credits,  -- what the invoice buys
    payment_intent_id,  -- the gateway's own reference into Stripe
    stripe_invoice_id,  -- likewise
    status,  -- draft | open | paid | void | uncollectible
    pdf_url,
    receipt_url,
    source_object,  -- the file of the newest delivery
    source_line,
from staging.invoices
left join staging.workspaces using (workspace_id)
