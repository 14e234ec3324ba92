-- A cycle in which a workspace's allowance was going to run out before its end, or has run out.
--
-- At the end of each day of the cycle what is left is divided by the mean of the last seven days,
-- days of the cycle before among them and days without spend too. The first day on which that ends
-- within the cycle is kept, however the rate changes later; the other numbers are those of now, or
-- of the cycle's last day once it is over. Days are UTC, like all that alerts; only days that are
-- over count for the rate, and today's credits, too, for what has been reached.
--
-- grain: workspace_id, cycle_start_date
with workspaces as (
    select
        workspace_id,
        cast(monthly_allowance_credits as decimal(38, 9)) as allowance_credits,
        coalesce(day(cycle_anchor_date), 1) as anchor_day,
        cast($as_of::timestamp as date) - 1 as last_complete_date,
    from staging.workspaces
    where monthly_allowance_credits > 0
),

spend as (
    select workspace_id, usage_date, credits
    from marts.daily_spend
    where scope = 'workspace'
        and usage_date <= $today
),

lives as (
    select
        workspaces.*,
        min(usage_date) as first_date,
    from workspaces
    join spend using (workspace_id)
    group by all
),

day_lists as (
    -- every day since the first, those without spend too
    select
        workspace_id,
        allowance_credits,
        anchor_day,
        last_complete_date,
        unnest(generate_series(
            cast(first_date as timestamp), cast($today as timestamp), interval 1 day
        )) as day_at,
    from lives
),

days as (
    select
        *,
        cast(day_at as date) as usage_date,
        cycle_start(usage_date, anchor_day) as cycle_start_date,
        cycle_end(usage_date, anchor_day) as cycle_end_date,
    from day_lists
),

totals as (
    select
        days.workspace_id,
        days.usage_date,
        cycle_start_date,
        cycle_end_date,
        allowance_credits,
        days.usage_date <= last_complete_date as is_complete,
        cast(
            coalesce(
                sum(credits) over (
                    partition by days.workspace_id, cycle_start_date
                    order by days.usage_date
                ),
                0
            )
            as decimal(38, 9)
        ) as cycle_credits,
        coalesce(
            sum(credits) over (
                partition by days.workspace_id
                order by days.usage_date
                rows between 6 preceding and current row
            ),
            0
        ) as week_credits,
    from days
    left join spend
        on spend.workspace_id = days.workspace_id
        and spend.usage_date = days.usage_date
),

projections as (
    select
        *,
        case
            when cycle_credits < allowance_credits and is_complete and week_credits > 0
            then usage_date + cast(
                ceil(least(
                    cast(allowance_credits - cycle_credits as double) * 7
                    / cast(week_credits as double),
                    1000
                ))
                as integer
            )
        end as projected_on,
    from totals
),

by_cycle as (
    select
        workspace_id,
        cycle_start_date,
        any_value(cycle_end_date) as cycle_end_date,
        any_value(allowance_credits) as allowance_credits,
        max(cycle_credits) as credits,
        min(usage_date) filter (cycle_credits >= allowance_credits) as reached_on,
        min(usage_date) filter (projected_on < cycle_end_date) as projected_within_on,
        arg_min(projected_on, usage_date) filter (projected_on < cycle_end_date)
            as first_exhausted_on,
        arg_max(projected_on, usage_date) filter (is_complete) as last_projected_on,
        arg_max(week_credits, usage_date) filter (is_complete) as week_credits,
    from projections
    group by 1, 2
)

select
    workspace_id,
    cycle_start_date,      -- the first day of the cycle
    cycle_end_date,        -- the first day of the next
    -- (least() passes over nulls)
    least(projected_within_on, reached_on)
        as first_projected_on,  -- the day at whose end it was first to run out within the cycle
    coalesce(first_exhausted_on, reached_on)
        as first_exhausted_on,  -- when it was to, as seen on that day
    case
        when reached_on is not null then reached_on
        when last_projected_on < cycle_end_date then last_projected_on
    end as exhausted_on,   -- when it did, or is to as seen now; null: no longer within the cycle
    reached_on is not null as is_exhausted,  -- it did
    credits,               -- spent in the cycle, so far
    allowance_credits,     -- of the cycle
    cast(round(cast(week_credits as double) / 7, 9) as decimal(38, 9))
        as credits_per_day,  -- mean of the last seven days that are over
from by_cycle
where least(projected_within_on, reached_on) is not null
