-- How many requests and credits a UTC day has at each stage; they agree to the last decimal, or the
-- night is not published.
--
-- grain: usage_date, stage
with stages as (
    select usage_date, stage, request_count, credits
    from staging.request_counts
    union all
    select usage_date, 'by_model' as stage, sum(request_count), sum(credits)
    from marts.usage_by_model
    group by 1
    union all
    select usage_date, 'by_key' as stage, sum(request_count), sum(credits)
    from marts.usage_by_key
    group by 1
    union all
    select usage_date, 'by_member' as stage, sum(request_count), sum(credits)
    from marts.usage_by_member
    group by 1
    union all
    select posted_date, 'ledger' as stage, null, -sum(credits)
    from marts.credit_ledger
    where kind = 'usage'
    group by 1
    union all
    select usage_date, 'export' as stage, null, sum(credits)
    from ops.export_manifest
    where kind = 'csv'
    group by 1
),

days as (
    select distinct usage_date from stages
),

kinds as (  -- every stage has a row on every day: one that lost a day shows nought, not silence
    select unnest(['raw', 'staging', 'by_model', 'by_key', 'by_member', 'ledger']) as stage
    union all
    select distinct 'export'
    from ops.export_manifest
),

named as (
    select usage_date, stage
    from days
    cross join kinds
),

counted as (
    select
        usage_date,
        stage,
        case
            when stage not in ('ledger', 'export') then coalesce(request_count, 0)::bigint
        end as request_count,
        coalesce(credits, 0)::decimal(38, 9) as credits,
    from named
    left join stages using (usage_date, stage)
),

raw_counts as (
    select usage_date, request_count, credits
    from counted
    where stage = 'raw'
)

select
    usage_date,  -- the UTC day
    stage,  -- raw, staging, by_model, by_key, by_member, ledger or export
    counted.request_count,  -- null for the ledger and the exported roll-ups, which count none
    counted.credits,  -- of that day at that stage
    counted.credits = raw_counts.credits
    and coalesce(counted.request_count = raw_counts.request_count, true) as agrees,  -- with raw
from counted
inner join raw_counts using (usage_date)
