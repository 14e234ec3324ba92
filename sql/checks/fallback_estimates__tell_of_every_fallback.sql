-- The fallbacks of a day that an estimate tells of are those that its usage counts.
--
-- each: day
with usage as (
    select usage_date, sum(fallback_count) as fallback_count
    from marts.usage_by_model
    group by 1
),

estimates as (
    select usage_date, sum(request_count) as fallback_count
    from marts.fallback_estimates
    group by 1
)

select
    usage_date,
    'marts.fallback_estimates' as table_name,
    'every fallback of a day is told of' as claim,
    coalesce(usage.fallback_count, 0)::varchar as expected,
    coalesce(estimates.fallback_count, 0)::varchar as found,
from usage
full join estimates using (usage_date)
where coalesce(usage.fallback_count, 0) <> coalesce(estimates.fallback_count, 0)
