-- A gateway invoice (Billing → History): a subscription renewal or a top-up, with the pack it
-- delivered, its VAT, where its documents are, and whom the bill went to.
--
-- Links are the gateway's own; where it states none, those of Stripe: the PDF of the Stripe invoice
-- tied to it, the receipt of its newest settled charge. The billing contact is the directory's of
-- the workspace, else Stripe's customer behind that invoice or charge.
--
-- grain: invoice_id
with bills as (
    select
        infery_invoice_id,
        arg_max(stripe_invoice_id, (ties.created_at, stripe_invoice_id)) as stripe_invoice_id,
    from staging.stripe_invoice_ties as ties
    where is_tied
    group by 1
),

receipts as (
    select
        invoice_id as infery_invoice_id,
        arg_max_null(charge_id, (charged_at, charge_id)) as charge_id,
    from marts.invoice_charges
    where role = 'settled'
    group by 1
),

customers as (
    select customer_id, name, email
    from raw.stripe_customers
    where coalesce(livemode, $stripe_livemode) = $stripe_livemode
    qualify row_number() over (
        partition by customer_id
        order by case origin when 'api' then 0 else 1 end, arrived_at desc, record_sha256
    ) = 1
)

select
    invoices.infery_invoice_id as invoice_id,  -- the gateway's infery_invoice_id
    workspace_id,
    workspaces.name as workspace_name,  -- null: the directory does not know it
    invoices.kind,  -- subscription | topup
    invoices.issued_at,
    invoices.currency,  -- lower-case ISO code of every amount beside it
    invoices.net_minor,  -- minor units
    invoices.vat_minor,  -- the customer's VAT, minor units
    invoices.total_minor,  -- net + VAT
    invoices.credits,  -- what the invoice buys
    invoices.payment_intent_id,  -- the gateway's own reference into Stripe
    invoices.stripe_invoice_id,  -- likewise
    invoices.status,  -- draft | open | paid | void | uncollectible
    coalesce(invoices.pdf_url, stripe.pdf_url) as pdf_url,
    coalesce(invoices.receipt_url, charges.receipt_url) as receipt_url,
    customers.name as billing_name,  -- of Stripe's customer; null: not known
    coalesce(workspaces.billing_email, customers.email)
        as billing_email,  -- the workspace's, else of Stripe's customer
    invoices.source_object,  -- the file of the newest delivery
    invoices.source_line,
from staging.invoices as invoices
left join staging.workspaces as workspaces using (workspace_id)
left join bills on bills.infery_invoice_id = invoices.infery_invoice_id
left join staging.stripe_invoices as stripe
    on stripe.stripe_invoice_id = bills.stripe_invoice_id
left join receipts on receipts.infery_invoice_id = invoices.infery_invoice_id
left join staging.charges as charges on charges.charge_id = receipts.charge_id
left join customers
    on customers.customer_id = coalesce(stripe.customer_id, charges.customer_id)
