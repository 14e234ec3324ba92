-- A charge of an odd gateway invoice, as in marts.invoice_charges: the few of a million that are
-- looked at one by one.
--
-- grain: charge_id, invoice_id
select
    charge_id,
    invoice_id,
    rung,
    role,
    amount_minor,
    currency,
    charged_at,
    payment_intent_id,
    stripe_invoice_id,
    is_other_currency,
    is_other_workspace,
from marts.invoice_charges as charges
semi join staging.odd_invoices as odd on odd.infery_invoice_id = charges.invoice_id
