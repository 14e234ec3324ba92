-- A gateway invoice whose charges must be told one by one: there are several, or one has not
-- settled or is in another currency.
--
-- All other invoices with a charge have exactly one that settled, whose own numbers are theirs: of
-- a million of them nothing need be summed.
--
-- grain: invoice_id
select invoice_id  -- as in marts.invoice_charges
from staging.odd_charges
where role <> 'conflict'
group by 1
having count(*) > 1 or bool_or(role <> 'settled' or is_other_currency)
