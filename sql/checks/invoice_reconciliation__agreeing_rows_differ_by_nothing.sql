-- Where the two sides agree, no money is unexplained; a lost dispute is agreed on, though the
-- money is gone.
select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    item_kind || ' ' || item_id || ' is ' || status || ' and differs by nothing' as claim,
    '0' as expected,
    difference_minor::varchar as found,
from marts.invoice_reconciliation
where standing = 'agrees' and status <> 'dispute_lost' and difference_minor <> 0
