-- A budget on the day its threshold was reached, once in each cycle.
--
-- A budget is a share of the plan's allowance or a number of credits, for a workspace or for one of
-- its keys, models or members. Its cycle starts on the day of the month on which the workspace's
-- plan does (on the last day of a shorter month), and on the first where no such day is known.
-- Cycles are counted in UTC days, like all that alerts.
--
-- A workspace with an allowance for which nobody set a budget of the whole workspace has those that
-- the settings name for all (budget_percents; none unless they do). Of these only the highest that
-- a day reached stands: one day that takes it from a third to all of it is one piece of news.
--
-- grain: budget_id, cycle_start_date
with set_budgets as (
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
        false as is_default,
        coalesce(day(cycle_anchor_date), 1) as anchor_day,
    from staging.budgets as budgets
    left join staging.workspaces using (workspace_id)
),

percents as (
    select unnest($alerts_budget_percents) as whole_percent
),

default_budgets as (
    select
        'allowance:' || workspace_id || ':' || cast(whole_percent as varchar) || '%' as budget_id,
        workspace_id,
        'workspace' as scope,
        workspace_id as subject_id,
        cast(whole_percent as decimal(18, 9)) as threshold_percent,
        monthly_allowance_credits as allowance_credits,
        cast(monthly_allowance_credits * whole_percent * 0.01 as decimal(38, 9))
            as threshold_credits,
        null as recipients,
        true as is_default,
        coalesce(day(cycle_anchor_date), 1) as anchor_day,
    from staging.workspaces
    cross join percents
    where monthly_allowance_credits > 0
        and workspace_id not in (
            select workspace_id
            from staging.budgets
            where scope = 'workspace'
                and workspace_id is not null
                and coalesce(threshold_percent, threshold_credits) is not null
        )
),

budgets as (
    from set_budgets
    union all
    from default_budgets
),

spend as (
    select
        budgets.*,
        usage_date,
        credits,
        cycle_start(usage_date, anchor_day) as cycle_start_date,
        cycle_end(usage_date, anchor_day) as cycle_end_date,
    from marts.daily_spend
    join budgets using (workspace_id, scope, subject_id)
    where threshold_credits > 0
),

running_totals as (
    select
        *,
        sum(credits) over (
            partition by budget_id, cycle_start_date
            order by usage_date
        ) as cycle_credits,
    from spend
),

crossings as (
    select *
    from running_totals
    where cycle_credits >= threshold_credits
    qualify row_number() over (partition by budget_id, cycle_start_date order by usage_date) = 1
),

ranked as (
    select
        *,
        max(threshold_credits) over (
            partition by workspace_id, cycle_start_date, usage_date, is_default
        ) as highest_threshold_credits,
    from crossings
)

select
    budget_id,          -- of the directory; or 'allowance:<workspace>:<percent>%' of the settings
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
    is_default,         -- nobody set it for this workspace: the settings name it for all
from ranked
where not is_default
    or threshold_credits = highest_threshold_credits
