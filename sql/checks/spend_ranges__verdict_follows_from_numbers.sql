-- A day is over its limit if and only if its verdict says so, only finished days are drift, and one
-- that would be told is expected if and only if it is below twice what was called so.
--
-- each: day
with verdicts as (
    select
        *,
        coalesce(overruled_verdict, verdict) as verdict_of_numbers,
        coalesce(credits < 2 * expected_credits, false) as is_within_what_was_expected,
    from marts.spend_ranges
)

select
    usage_date,
    'marts.spend_ranges' as table_name,
    'a day is over its limit exactly where its verdict says so' as claim,
    case
        when credits > upper_limit and is_within_what_was_expected then 'expected'
        when credits > upper_limit then 'high or woke'
        when upper_limit is null then 'too_young'
        when is_within_what_was_expected then 'normal, expected or incomplete'
        else 'normal, drift or incomplete'
    end as expected,
    verdict as found,
    workspace_id,
    scope,
    subject_id,
from verdicts
where coalesce(credits > upper_limit, false) != (verdict_of_numbers in ('high', 'woke'))
    or (verdict_of_numbers in ('drift', 'normal') and not is_complete)
    or (verdict = 'incomplete' and is_complete)
    or (verdict = 'expected') != (overruled_verdict is not null)
    or (verdict = 'expected')
    != (verdict_of_numbers in ('high', 'drift', 'woke') and is_within_what_was_expected)
