-- A gateway invoice that one plain charge has paid, whole: nothing of it need be judged or summed.
--
-- facts/reconciliation.md, section 5: it is matched, or matched by its id alone where the charge
-- names no workspace.
--
-- kind: view
-- grain: item_id
select
    invoices.infery_invoice_id as item_id,
    'invoice' as item_kind,
    invoices.infery_invoice_id as invoice_id,
    invoices.workspace_id,
    invoices.kind,
    coalesce(charges.stripe_invoice_id, invoices.stripe_invoice_id) as stripe_invoice_id,
    coalesce(charges.payment_intent_id, invoices.payment_intent_id) as payment_intent_id,
    case when rung = 1 then 'matched' else 'matched_by_fallback' end as status,
    'agrees' as standing,
    matched_by,
    invoices.currency,
    total_minor,
    total_minor as expected_minor,
    total_minor as charged_minor,
    0::bigint as out_of_band_minor,
    0::bigint as refunded_minor,
    0::bigint as disputed_minor,
    total_minor as kept_minor,
    0::bigint as difference_minor,
    1::integer as charge_count,
    issued_at as began_at,
    charge_id as told_charge_id,  -- the charge
    charged_at as told_at,
from staging.invoices as invoices
inner join marts.invoice_charges as charges on charges.invoice_id = invoices.infery_invoice_id
anti join staging.odd_invoices as odd using (infery_invoice_id)
