-- A day is over its limit if and only if its verdict says so, and only finished days are drift.
--
-- each: day
select
    usage_date,
    'marts.spend_ranges' as table_name,
    'a day is over its limit exactly where its verdict says so' as claim,
    case
        when credits > upper_limit then 'high or woke'
        when upper_limit is null then 'too_young'
        else 'normal, drift or incomplete'
    end as expected,
    verdict as found,
    workspace_id,
    scope,
    subject_id,
from marts.spend_ranges
where coalesce(credits > upper_limit, false) != (verdict in ('high', 'woke'))
    or (verdict in ('drift', 'normal') and not is_complete)
    or (verdict = 'incomplete' and is_complete)
