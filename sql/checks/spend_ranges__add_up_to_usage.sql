-- In each scope, the credits of a day's ranges are those of the usage that names a subject.
--
-- But for tomorrow, whose ranges have no credits, whatever of it has landed.
--
-- each: day
with ranges as (
    select usage_date, scope, sum(credits) as credits
    from marts.spend_ranges
    group by 1, 2
),

named_usage as (
    select usage_date, 'key' as scope, credits
    from marts.usage_by_key
    where api_key_id is not null
    union all
    select usage_date, 'model', credits
    from marts.usage_by_model
    where model is not null
    union all
    select usage_date, 'member', credits
    from marts.usage_by_member
    where member_id is not null
    union all
    select usage_date, 'workspace', credits
    from marts.usage_by_key
    where workspace_id is not null
),

usage as (
    select usage_date, scope, sum(credits) as credits
    from named_usage
    group by 1, 2
)

select
    usage_date,
    'marts.spend_ranges' as table_name,
    'the credits of scope ' || scope || ' are those of the usage' as claim,
    cast(coalesce(usage.credits, 0) as varchar) as expected,
    cast(coalesce(ranges.credits, 0) as varchar) as found,
from usage
full join ranges using (usage_date, scope)
where coalesce(usage.credits, 0) != coalesce(ranges.credits, 0)
    and usage_date != $today + 1
