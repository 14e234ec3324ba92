-- Each restatement of a day begins where the one before it ended, and the last one ends at what the
-- day holds now.
with published as (
    select usage_date, request_count, credits
    from marts.conservation
    where stage = 'staging'
),

steps as (
    select
        usage_date,
        restatement_number,
        request_count_after,
        credits_after,
        coalesce(
            lead(request_count_before) over by_day, published.request_count, 0
        ) as request_count_then,
        coalesce(lead(credits_before) over by_day, published.credits, 0) as credits_then,
        row_number() over by_day as expected_number,
    from marts.restatements
    left join published using (usage_date)
    window by_day as (partition by usage_date order by restatement_number)
)

select
    usage_date,
    'marts.restatements' as table_name,
    'restatement ' || restatement_number || ' of the day leads to what was published next' as claim,
    credits_then || ' credits in ' || request_count_then || ' requests' as expected,
    credits_after || ' credits in ' || request_count_after || ' requests' as found,
from steps
where (request_count_after, credits_after) <> (request_count_then, credits_then)
    or restatement_number <> expected_number
