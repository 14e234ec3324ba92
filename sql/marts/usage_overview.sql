-- Where a workspace stands: credits today, this week, this month and this cycle, against its plan's
-- allowance.
--
-- Days are local to the workspace's zone; "today" is the local day that contains the microsecond
-- before as-of.
--
-- looks back: staging.workspace_quarters 45 days
-- grain: workspace_id?
with workspaces as (
    select
        workspace_id,
        name,
        coalesce(time_zone, 'UTC') as time_zone,
        plan,
        monthly_allowance_credits,
        cycle_anchor_date,
    from staging.workspaces
    union all
    select distinct
        workspace_id,
        null::varchar as name,
        'UTC' as time_zone,
        null::varchar as plan,
        null::decimal(18, 9) as monthly_allowance_credits,
        null::date as cycle_anchor_date,
    from staging.workspace_quarters
    where workspace_id is null or workspace_id not in (select workspace_id from staging.workspaces)
),

todays as (
    select
        *,
        (
            ($as_of::timestamp - interval '1 microsecond') at time zone 'UTC' at time zone time_zone
        )::date as today,
    from workspaces
),

cycles as (
    select
        *,
        cycle_start(today, coalesce(day(cycle_anchor_date), 1)) as cycle_start_date,
    from todays
),

quarters as (
    select workspace_id, quarter_at, credits
    from staging.workspace_quarters
    where quarter_at < $as_of
),

instants as (
    select distinct quarter_at from quarters
),

zones as (
    select distinct time_zone from todays
),

local_dates as (  -- of a quarter in a zone, told once for all workspaces
    select
        quarter_at,
        time_zone,
        (quarter_at at time zone 'UTC' at time zone time_zone)::date as local_date,
    from instants
    cross join zones
),

local_days as (
    select
        quarters.workspace_id,
        local_date,
        sum(credits) as credits,
    from quarters
    inner join todays on todays.workspace_id is not distinct from quarters.workspace_id
    inner join local_dates using (quarter_at, time_zone)
    group by 1, 2
),

sums as (
    select
        cycles.workspace_id,
        coalesce(sum(credits) filter (where local_date = today), 0)::decimal(38, 9)
            as credits_today,
        coalesce(
            sum(credits) filter (where local_date between date_trunc('week', today) and today), 0
        )::decimal(38, 9) as credits_this_week,
        coalesce(
            sum(credits) filter (where local_date between date_trunc('month', today) and today), 0
        )::decimal(38, 9) as credits_this_month,
        coalesce(
            sum(credits) filter (where local_date between cycle_start_date and today), 0
        )::decimal(38, 9) as credits_this_cycle,
        coalesce(
            sum(credits) filter (where local_date between today - 7 and today - 1), 0
        )::double / 7 as daily_rate,
    from cycles
    left join local_days on local_days.workspace_id is not distinct from cycles.workspace_id
    group by 1
)

select
    cycles.workspace_id,  -- null: unassigned
    name as workspace_name,  -- null: the directory does not know it
    plan,  -- in the directory's own word
    time_zone,  -- whose days these are
    $as_of::timestamp as as_of,  -- exclusive end of what is counted, UTC
    today as local_date,  -- the workspace's today
    credits_today,  -- so far
    credits_this_week,  -- ISO week
    credits_this_month,  -- calendar month
    credits_this_cycle,  -- since the cycle began
    cycle_start_date,  -- the local day on which this cycle began
    monthly_allowance_credits::decimal(38, 9) as allowance_credits,  -- of one cycle; null: none
    round(credits_this_cycle::double / nullif(allowance_credits, 0)::double, 9)::decimal(38, 9)
        as share_used,  -- of the cycle's allowance
    case
        when allowance_credits is null then null
        when credits_this_cycle >= allowance_credits then today
        when
            daily_rate > 0
            and (allowance_credits - credits_this_cycle)::double / daily_rate < 3650
            then
                today + ceil((allowance_credits - credits_this_cycle)::double / daily_rate)::integer
    end as exhausted_on,  -- at the mean of the last 7 complete local days
from cycles
inner join sums on sums.workspace_id is not distinct from cycles.workspace_id
