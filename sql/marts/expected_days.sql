-- A day of a subject some level of which somebody had called expected before, and whether the day
-- is within it: it is while it takes less than twice as much.
--
-- Here and nowhere else is said which days are expected: spend_ranges takes its verdict from it,
-- alert_days who is told. A day that is within its range has a row, too.
--
-- grain: usage_date, workspace_id?, scope, subject_id
select
    spend.usage_date,
    spend.workspace_id,                         -- null: the source names none
    spend.scope,                                -- key, model, member or workspace
    spend.subject_id,                           -- the id (or model) within its scope
    count(*) as era,                            -- how often it was called expected before this day
    max(said_of_credits) as expected_credits,   -- the biggest day that was called so
    any_value(spend.credits) < 2 * max(said_of_credits)
        as is_expected,                         -- this day, so far if it is not over
from marts.daily_spend as spend
join staging.expected_levels as level
    on level.workspace_id is not distinct from spend.workspace_id
    and level.scope = spend.scope
    and level.subject_id = spend.subject_id
    and level.judged_until < spend.usage_date
where spend.usage_date = $day
group by 1, 2, 3, 4
