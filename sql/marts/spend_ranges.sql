-- What a key, model, member or workspace may normally spend on a day, and how the day compares.
--
-- The judging half of the detector; spend_habits is the learning half, docs/detection.md the page
-- about both. One row for each subject with spend on the day, and for tomorrow one for each subject
-- with spend in the year before, without credits even where some have landed: a running total can
-- be held against it by the hour.
--
-- A day is over when its credits are above upper_limit, the largest of three: the highest normal
-- day (range_high), X percent above what was expected, and a floor of credits below which nobody
-- wants to be woken. The largest of the published numbers, to the last place: it can be checked.
--
-- A day beyond its range that somebody has called expected (expected_days) is `expected` instead:
-- it alerts nobody. What its numbers say is kept beside it, for it is no less an anomaly, and can
-- explain a wider one.
--
-- grain: usage_date, workspace_id?, scope, subject_id
-- also for: tomorrow
with presets as (
    -- How far beyond its habits a subject may go. Measured on SpendBench, not guessed: score it
    -- again (tests/spendbench.py) before touching a number.
    from (
        values
            ('low', 2.30, 1.50, 0.70, 2.50, 2.40, 2.00, 0.60, 1.20),
            ('normal', 1.90, 1.30, 0.70, 2.10, 2.00, 1.80, 0.60, 1.00),
            ('high', 1.50, 1.20, 0.70, 1.80, 1.80, 1.70, 0.50, 1.00)
    ) as preset (
        sensitivity,
        one_day_factor,        -- on the high day
        two_day_factor,        -- on the same when the day before was high as well
        surprise_power,        -- how much past surprises widen or narrow the range of one day
        young_factor,          -- on the biggest day of a young subject
        young_two_day_factor,  -- on the same when the day before was high as well
        drift_factor,          -- this week on the best week before
        drift_spread_factor,   -- more for those whose days differ more
        drift_high_day_factor  -- this week on a high day before
    )
),

watched as (
    -- What is said of the subject itself speaks first, then of its workspace, then the settings.
    select
        habit.*,
        cast(
            coalesce(
                own.exceed_percent,
                workspace.exceed_percent,
                cast($alerts_exceed_percent as decimal(12, 4))
            ) as decimal(12, 4)
        ) as exceed_percent,
        cast(
            coalesce(
                own.floor_credits,
                workspace.floor_credits,
                cast($alerts_floor_credits as decimal(38, 9))
            ) as decimal(38, 9)
        ) as floor_credits,
        coalesce(own.sensitivity, workspace.sensitivity, $alerts_sensitivity) as sensitivity,
    from marts.spend_habits as habit
    left join staging.alert_settings as own
        on own.workspace_id is not distinct from habit.workspace_id
        and own.scope = habit.scope
        and own.subject_id = habit.subject_id
    left join staging.alert_settings as workspace
        on workspace.workspace_id = habit.workspace_id
        and workspace.scope = 'workspace'
    where habit.usage_date = $day
        and habit.run_end_date is null  -- not the biggest of a run of days
),

known as (
    select
        *,
        -- Woken: born four weeks ago or more, and silent but for the last three days. The three
        -- days keep it armed: a thief who tries a key with one small call has not made it normal.
        first_date <= $day - 28 and wakeful_day_count = 0 as is_waking,
        -- Whoever surprised before may do so again, whoever never did may not: the year's biggest
        -- surprise, beside the 1.35 that is presumed of everybody on 30 days. What it excuses is
        -- bounded, so that an old leak does not hide the next.
        least(
            exp(
                surprise_power
                * coalesce(ln(biggest_surprise / 1.35), 0)
                * judged_day_count / (judged_day_count + 30)
            ),
            2
        ) as surprise_factor,
    from watched
    join presets using (sensitivity)
),

limits as (
    select
        *,
        case when is_waking then 0 else exp(level + weekday_factor) end as raw_expected,
        case
            -- 1. Nothing is expected of a sleeper, so only the floor is left.
            when is_waking then cast(floor_credits as double)
            -- 2. Two weeks of habits: one high day must be very high. When yesterday was high too,
            --    less is enough: bursts are alone, leaks come back.
            when active_day_count >= 15 and yesterday_credits > two_day_factor * high_yesterday
            then least(
                one_day_factor * surprise_factor * high_day,
                two_day_factor * high_day_but_yesterday
            )
            when active_day_count >= 14 then one_day_factor * surprise_factor * high_day
            -- 3. Young: only the biggest day so far is known, and the fewer days the less it says.
            when active_day_count >= 4
                and yesterday_credits > young_two_day_factor * biggest_day_but_yesterday
            then least(
                young_factor * exp(4.0 / active_day_count) * biggest_day,
                young_two_day_factor * biggest_day_but_yesterday
            )
            when active_day_count >= 3
            then young_factor * exp(4.0 / active_day_count) * biggest_day
            -- 4. Fewer than three days say nothing: the workspace's own range covers it.
        end as raw_range_high,
        -- 5. Drift: no day is out of range and yet the weeks climb out of all that was. A whole
        --    week above the best of nine, the week before already on its way, above the high days
        --    of that time, and by more than the floor.
        coalesce(
            first_date <= $day - 41
            and best_week_credits > 0
            and this_week_credits > best_week_credits
                * drift_factor * exp(drift_spread_factor * (earlier_spread - 0.3))
            and last_week_credits > 1.3 * best_week_credits
            and this_week_credits - best_week_credits > cast(floor_credits as double)
            and this_week_credits > drift_high_day_factor * high_day_credits,
            false
        ) as is_drifting,
    from known
),

published as (
    -- Rounded here, once, so that everything below follows from numbers a reader can see. No key
    -- spends a quadrillion credits: the cap keeps one absurd history from failing the whole night.
    select
        *,
        cast(round(if(raw_expected > 1e15, 1e15, coalesce(raw_expected, 0)), 9) as decimal(38, 9))
            as expected,
        cast(round(if(raw_range_high > 1e15, 1e15, raw_range_high), 9) as decimal(38, 9))
            as range_high,
    from limits
),

bounded as (
    select
        *,
        case
            when range_high is not null then greatest(
                range_high,
                cast(
                    expected * (1 + exceed_percent * 0.01) as decimal(38, 9)
                ),
                expected + floor_credits
            )
        end as upper_limit,
    from published
),

judged as (
    select
        *,
        case
            when range_high is null then 'too_young'
            when credits > upper_limit and is_waking then 'woke'
            when credits > upper_limit then 'high'
            when not $is_complete then 'incomplete'
            when is_drifting then 'drift'
            else 'normal'
        end as verdict_of_numbers,
    from bounded
),

called as (
    select workspace_id, scope, subject_id, expected_credits, is_expected
    from marts.expected_days
    where usage_date = $day
),

agreed as (
    select
        judged.*,
        expected_credits,
        coalesce(is_expected and verdict_of_numbers in ('high', 'drift', 'woke'), false)
            as is_overruled,
    from judged
    left join called
        on called.workspace_id is not distinct from judged.workspace_id
        and called.scope = judged.scope
        and called.subject_id = judged.subject_id
)

select
    usage_date,
    workspace_id,          -- null: the source names none
    scope,                 -- key, model, member or workspace
    subject_id,            -- the id (or model) within its scope
    credits,               -- spent so far on this day; null for tomorrow
    expected,              -- the typical day for this weekday; 0 for one that slept for four weeks
    range_high,            -- the highest normal day; null while too young
    upper_limit,           -- max(range_high, expected × (1 + X/100), expected + floor)
    cast(round(cast(credits as double) / nullif(cast(expected as double), 0), 9) as decimal(38, 9))
        as ratio,          -- credits / expected; null when expected is 0
    -- normal; high, drift, woke: beyond its range; expected: so, too, but somebody has called it
    -- expected; too_young; incomplete: the day is not over
    if(is_overruled, 'expected', verdict_of_numbers)
        as verdict,        -- normal, high, drift, woke, expected, too_young or incomplete
    $is_complete as is_complete,  -- the day ended before the night's clock
    exceed_percent,        -- the X that was applied
    floor_credits,         -- the floor that was applied
    sensitivity,           -- the sensitivity that was applied
    if(is_overruled, verdict_of_numbers, null)
        as overruled_verdict,  -- of an expected day: high, drift or woke, as its numbers say
    expected_credits,      -- the biggest day that somebody called expected before; or null
from agreed
