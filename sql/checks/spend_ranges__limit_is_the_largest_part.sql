-- The upper limit is the largest of its three published parts, and absent exactly while too young.
--
-- each: day
with parts as (
    select
        *,
        greatest(
            range_high,
            cast(expected * (1 + exceed_percent * 0.01) as decimal(38, 9)),
            expected + floor_credits
        ) as largest_part,
    from marts.spend_ranges
)

select
    usage_date,
    'marts.spend_ranges' as table_name,
    'the upper limit is the largest of its three parts' as claim,
    if(verdict = 'too_young', 'no limit', cast(largest_part as varchar)) as expected,
    coalesce(cast(upper_limit as varchar), 'no limit') as found,
    workspace_id,
    scope,
    subject_id,
from parts
where (verdict = 'too_young') != (upper_limit is null)
    or (range_high is null) != (upper_limit is null)
    or upper_limit != largest_part
