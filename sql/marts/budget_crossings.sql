-- A budget on the day its threshold was reached, once in each cycle.
--
-- A budget is a share of the plan's allowance or a number of credits, for a workspace or for one of
-- its keys, models or members. Its cycle starts on the day of the month on which the workspace's
-- plan does (on the last day of a shorter month), and on the first where no such day is known.
-- Cycles are counted in UTC days, like all that alerts.
--
-- grain: budget_id, cycle_start_date
with budgets as (
    select
        budget_id,
        budgets.workspace_id,
        scope,
        case when scope = 'workspace' then budgets.workspace_id else subject_id end as subject_id,
        threshold_percent,
        monthly_allowance_credits as allowance_credits,
        cast(
            coalesce(
                threshold_credits,
                monthly_allowance_credits * threshold_percent * 0.01  -- exact: 20 of 38 places
            )
            as decimal(38, 9)
        ) as threshold_credits,
        recipients,
        coalesce(day(cycle_anchor_date), 1) as anchor_day,
    from staging.budgets as budgets
    left join staging.workspaces using (workspace_id)
),

spend as (
    select
        budgets.*,
        usage_date,
        credits,
        cast(date_trunc('month', usage_date) as date) as month_date,
        cast(date_trunc('month', usage_date) - interval 1 month as date) as last_month_date,
        cast(date_trunc('month', usage_date) + interval 1 month as date) as next_month_date,
    from marts.daily_spend
    join budgets using (workspace_id, scope, subject_id)
    where threshold_credits > 0
),

anchors as (
    -- the day a cycle starts in the month before, in this one and in the next
    select
        *,
        last_month_date + cast(least(anchor_day, day(last_day(last_month_date))) as integer) - 1
            as last_anchor_date,
        month_date + cast(least(anchor_day, day(last_day(month_date))) as integer) - 1
            as anchor_date,
        next_month_date + cast(least(anchor_day, day(last_day(next_month_date))) as integer) - 1
            as next_anchor_date,
    from spend
),

cycles as (
    select
        *,
        if(usage_date >= anchor_date, anchor_date, last_anchor_date) as cycle_start_date,
        if(usage_date >= anchor_date, next_anchor_date, anchor_date) as cycle_end_date,
    from anchors
),

running_totals as (
    select
        *,
        sum(credits) over (
            partition by budget_id, cycle_start_date
            order by usage_date
        ) as cycle_credits,
    from cycles
)

select
    budget_id,
    cycle_start_date,   -- the first day of the cycle
    cycle_end_date,     -- the first day of the next
    usage_date,         -- the day on which the threshold was reached
    workspace_id,
    scope,              -- key, model, member or workspace
    subject_id,         -- the id (or model) within its scope
    threshold_percent,  -- of the allowance; null where the budget is a number of credits
    allowance_credits,  -- of the workspace's plan, for one cycle
    threshold_credits,  -- the budget, in credits
    cast(cycle_credits as decimal(38, 9)) as cycle_credits,  -- in the cycle, that day included
    recipients,         -- whom to tell by e-mail, besides the settings'; null: nobody else
from running_totals
where cycle_credits >= threshold_credits
qualify row_number() over (partition by budget_id, cycle_start_date order by usage_date) = 1
