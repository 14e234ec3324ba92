-- Net and VAT of a gateway invoice make its total. Landing sets an invoice that says otherwise
-- aside, so a row here means that something below raw has changed an amount.
select
    null::date as usage_date,
    'marts.invoices' as table_name,
    'net and VAT make the total of invoice ' || invoice_id as claim,
    total_minor::varchar as expected,
    (net_minor + vat_minor)::varchar as found,
from marts.invoices
where net_minor + vat_minor <> total_minor
