-- A status is one of the 22 of the contract, has its standing, and a reason that a person can
-- read.
select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    item_kind || ' ' || item_id || ' has a known status, its standing and a reason' as claim,
    'agrees, waits or needs_person, and a reason' as expected,
    coalesce(status, 'no status') || ', ' || coalesce(standing, 'no standing') || ', '
    || case when reason is null then 'no reason' else 'a reason' end as found,
from marts.invoice_reconciliation
where status is null or standing is null or reason is null
    or standing not in ('agrees', 'waits', 'needs_person')
    or (standing = 'agrees') <> (opened_at is null)
