-- An alert: spend out of its normal range, a budget reached, or an allowance about to run out, told
-- from the day it opened.
--
-- An anomaly's alert is open while its last day out of range is at most three days before the
-- night's date, escalates when a later day reaches twice the credits of the first, and again each
-- time they double, and closes after three days within range. A budget's alert closes when the
-- next higher budget of the same subject is reached, or with its cycle; an allowance's with its
-- cycle, or while it is to last to the end after all. While it is not closed, what a person said of
-- it last is its state: acknowledged until it escalates beyond what was known then, expected, or
-- snoozed until the snooze ends.
-- All of it is a function of what was spent, of what was said and of the night's clock: nobody
-- keeps an alert's state anywhere.
--
-- grain: alert_id
with openings as (
    select
        anomaly.*,
        last_date,
        highest_credits,
        anomaly_day_count,
        level,
        escalated_date,
        opening.cause_text,
        opening.since_at,
        latest.credits_per_hour,
    from marts.alert_episodes as episode
    join marts.spend_anomalies as anomaly
        on anomaly.usage_date = episode.first_date
        and anomaly.workspace_id is not distinct from episode.workspace_id
        and anomaly.scope = episode.scope
        and anomaly.subject_id = episode.subject_id
    left join marts.spend_causes as opening
        on opening.usage_date = episode.first_date
        and opening.workspace_id is not distinct from episode.workspace_id
        and opening.scope = episode.scope
        and opening.subject_id = episode.subject_id
    left join marts.spend_causes as latest
        on latest.usage_date = last_date
        and latest.workspace_id is not distinct from episode.workspace_id
        and latest.scope = episode.scope
        and latest.subject_id = episode.subject_id
),

lines as (
    -- the last day of each wider subject that an alert explains
    select *
    from marts.alert_days
    where told_as = 'line'
    qualify row_number() over (
        partition by
            workspace_id, scope, subject_id, first_date, told_by_scope, told_by_subject_id
        order by usage_date desc
    ) = 1
),

wider_scopes as (
    select
        first_date,
        days.workspace_id,
        told_by_scope as scope,
        told_by_subject_id as subject_id,
        string_agg(
            format(
                '{} {}: {:,.2f} credits on {}, {}expected {:,.2f}',
                upper(days.scope[1]) || days.scope[2:],
                coalesce('"' || workspaces.name || '"', days.subject_id),
                cast(anomaly.credits as double),
                days.usage_date,
                coalesce(format('{:,.1f} times the ', cast(ratio as double)), 'against '),
                cast(expected as double)
            ),
            chr(10)
            order by days.scope, days.subject_id
        ) as also,
    from lines as days
    join marts.spend_anomalies as anomaly
        on anomaly.usage_date = days.usage_date
        and anomaly.workspace_id is not distinct from days.workspace_id
        and anomaly.scope = days.scope
        and anomaly.subject_id = days.subject_id
    left join staging.workspaces as workspaces
        on days.scope = 'workspace'
        and workspaces.workspace_id = days.subject_id
    group by 1, 2, 3, 4
),

spend_alerts as (
    select
        spend_identity(
            kind, openings.workspace_id, openings.scope, openings.subject_id, usage_date
        ) as identity,
        openings.workspace_id,
        kind,
        openings.scope,
        openings.subject_id,
        usage_date,
        last_date,
        credits,
        expected,
        upper_limit,
        ratio,
        highest_credits,
        level,
        escalated_date,
        coalesce(crossed_at, cast(usage_date + 1 as timestamp)) as opens_at,
        cast(last_date + 4 as timestamp) as closes_at,
        case
            when reason = 'drift' then concat_ws(
                ', ',
                format(
                    'the middle day of this week is {:.1f} times the best of nine weeks before',
                    cast(this_week_credits / nullif(best_week_credits, 0) as double)
                ),
                cause_text
            )
            else coalesce(cause_text, format('{:,} requests', request_count))
        end
        || case
            when openings.scope in ('model', 'workspace') and top_key_id is not null
            then format(
                ', {:.0f}% of the credits by key {}',
                cast(100 * top_key_credits / credits as double),
                coalesce('"' || keys.name || '"', top_key_id)
            )
            else ''
        end
        || case
            when openings.scope != 'model' and top_model is not null
            then format(
                ', {:.0f}% of the credits on model {}',
                cast(100 * top_model_credits / credits as double), top_model
            )
            else ''
        end as cause,
        case kind
            when 'woke' then format(
                'spent {:,.2f} credits on {}{} after four weeks of silence (limit {:,.2f}).',
                cast(credits as double), usage_date, if(is_complete, '', ' so far'),
                cast(upper_limit as double)
            )
            when 'drift' then format(
                'is drifting upwards: {:,.2f} credits on {}, day by day within its range '
                || '(up to {:,.2f}), week by week above all it {} in the two months before.',
                cast(credits as double), usage_date, cast(upper_limit as double),
                if(reason = 'climb', 'did', 'spent')
            )
            else format(
                'spent {:,.2f} credits on {}{}, {}the expected {:,.2f} ({}).',
                cast(credits as double), usage_date, if(is_complete, '', ' so far'),
                coalesce(format('{:,.1f} times ', cast(ratio as double)), 'against '),
                cast(expected as double),
                case reason
                    when 'burst' then format(
                        '{:,.2f} of them in the hour from {} UTC, where up to {:,.2f} are normal',
                        cast(peak_credits as double), strftime(peak_hour_at, '%H:%M'),
                        cast(hour_limit as double)
                    )
                    when 'surge' then format(
                        '{:,.2f} of them in the six hours from {} UTC, where up to {:,.2f} '
                        || 'are normal',
                        cast(six_hours_credits as double), strftime(six_hours_at, '%H:%M'),
                        cast(six_hours_limit as double)
                    )
                    else format('normal up to {:,.2f}', cast(upper_limit as double))
                end
            )
        end as what_happened,
        also,
        since_at,
        credits_per_hour,
        cast(null as date) as exhausted_on,
        cast(null as decimal(38, 9)) as threshold_percent,
        cast(null as decimal(38, 9)) as allowance_credits,
        cast(null as date) as cycle_start_date,
        cast(null as date) as cycle_end_date,
        cast(null as varchar) as told_by_identity,
        cast(null as varchar) as recipients,
    from openings
    left join staging.keys as keys on keys.api_key_id = top_key_id
    left join wider_scopes
        on wider_scopes.first_date = usage_date
        and wider_scopes.workspace_id is not distinct from openings.workspace_id
        and wider_scopes.scope = openings.scope
        and wider_scopes.subject_id = openings.subject_id
),

crossings as (
    select
        *,
        concat_ws(
            chr(31),
            'budget', workspace_id, scope, subject_id, cycle_start_date, budget_id
        ) as identity,
        lead(usage_date) over of_cycle as next_date,
    from marts.budget_crossings
    where usage_date <= $today
    window of_cycle as (
        partition by workspace_id, scope, subject_id, cycle_start_date
        order by usage_date, threshold_credits, budget_id
    )
),

budgets as (
    -- of several budgets of a subject that are reached on one day, the highest tells of them all
    select
        *,
        last_value(identity) over of_day as told_by_identity,
        string_agg(recipients, ', ') over of_day as all_recipients,
    from crossings
    window of_day as (
        partition by workspace_id, scope, subject_id, cycle_start_date, usage_date
        order by threshold_credits, budget_id
        rows between unbounded preceding and unbounded following
    )
),

budget_alerts as (
    select
        identity,
        workspace_id,
        'budget' as kind,
        scope,
        subject_id,
        usage_date,
        usage_date as last_date,
        cycle_credits as credits,
        cast(null as decimal(38, 9)) as expected,
        threshold_credits as upper_limit,
        cast(null as decimal(38, 9)) as ratio,
        cycle_credits as highest_credits,
        0 as level,
        cast(null as date) as escalated_date,
        cast(usage_date + 1 as timestamp) as opens_at,
        cast(least(next_date + 1, cycle_end_date) as timestamp) as closes_at,
        case
            when threshold_percent is not null then format(
                'budget {}: {}% of the allowance of {:,.2f} credits for the cycle from {} to {}',
                budget_id, rtrim(rtrim(cast(threshold_percent as varchar), '0'), '.'),
                cast(allowance_credits as double), cycle_start_date, cycle_end_date - 1
            )
            else format(
                'budget {}: {:,.2f} credits for the cycle from {} to {}',
                budget_id, cast(threshold_credits as double), cycle_start_date, cycle_end_date - 1
            )
        end as cause,
        format(
            'has spent {:,.2f} credits since {} and reached its budget of {:,.2f} on {}.',
            cast(cycle_credits as double), cycle_start_date, cast(threshold_credits as double),
            usage_date
        ) as what_happened,
        cast(null as varchar) as also,
        cast(null as timestamp) as since_at,
        cast(null as decimal(38, 9)) as credits_per_hour,
        cast(null as date) as exhausted_on,
        threshold_percent,
        allowance_credits,
        cycle_start_date,
        cycle_end_date,
        nullif(told_by_identity, identity) as told_by_identity,
        if(told_by_identity = identity, all_recipients, recipients) as recipients,
    from budgets
),

exhaustion_alerts as (
    select
        concat_ws(
            chr(31), 'exhaustion', workspace_id, 'workspace', workspace_id, cycle_start_date
        ) as identity,
        workspace_id,
        'exhaustion' as kind,
        'workspace' as scope,
        workspace_id as subject_id,
        first_projected_on as usage_date,
        first_projected_on as last_date,
        credits,
        cast(null as decimal(38, 9)) as expected,
        allowance_credits as upper_limit,
        cast(null as decimal(38, 9)) as ratio,
        credits as highest_credits,
        0 as level,
        cast(null as date) as escalated_date,
        cast(first_projected_on + 1 as timestamp) as opens_at,
        cast(if(exhausted_on is null, $as_of, cycle_end_date) as timestamp) as closes_at,
        format(
            '{:,.2f} credits a day in the last week, for a cycle until {}',
            cast(credits_per_day as double), cycle_end_date - 1
        ) as cause,
        case
            when is_exhausted then format(
                'has spent its allowance of {:,.2f} credits on {}: {:,.2f} since {}.',
                cast(allowance_credits as double), exhausted_on, cast(credits as double),
                cycle_start_date
            )
            else format(
                'has spent {:,.2f} of its {:,.2f} credits since {}; at this rate {} {}.',
                cast(credits as double), cast(allowance_credits as double), cycle_start_date,
                if(exhausted_on is null, 'they last beyond', 'the rest is gone on'),
                coalesce(exhausted_on, cycle_end_date - 1)
            )
        end as what_happened,
        cast(null as varchar) as also,
        cast(null as timestamp) as since_at,
        cast(round(cast(credits_per_day as double) / 24, 9) as decimal(38, 9)) as credits_per_hour,
        exhausted_on,
        cast(null as decimal(38, 9)) as threshold_percent,
        allowance_credits,
        cycle_start_date,
        cycle_end_date,
        cast(null as varchar) as told_by_identity,
        cast(null as varchar) as recipients,
    from marts.budget_exhaustion
),

alerts as (
    from spend_alerts
    union all
    from budget_alerts
    union all
    from exhaustion_alerts
),

dated as (
    select
        * replace (
            case
                -- another budget has taken its place, perhaps on a day that is not over
                when kind = 'budget' and closes_at < cycle_end_date then least(closes_at, $as_of)
                when kind = 'exhaustion' and exhausted_on is null then closes_at
                when closes_at < $as_of then closes_at
            end as closes_at
        ),
        alert_id_of(identity) as alert_id,
        alert_id_of(told_by_identity) as told_by_alert_id,
        least(opens_at, $as_of) as opened_at,
        -- (least() passes over nulls)
        case
            when escalated_date is not null
            then least(cast(escalated_date + 1 as timestamp), $as_of)
        end as escalated_at,
    from alerts
),

decisions as (
    select alert_id, decision, until, note, decided_at, decided_by, said_of_date
    from staging.alert_decisions
),

named as (
    select
        dated.*,
        workspaces.name as workspace_name,
        case scope
            when 'key' then keys.name
            when 'member' then members.name
            when 'workspace' then workspaces.name
        end as subject_name,
        decision,
        until,
        note,
        decided_at,
        decided_by,
        said_of_date,
    from dated
    left join decisions using (alert_id)
    left join staging.workspaces as workspaces on workspaces.workspace_id = dated.workspace_id
    left join staging.keys as keys on keys.api_key_id = dated.subject_id
    left join staging.members as members
        on members.member_id = dated.subject_id
        and members.workspace_id is not distinct from dated.workspace_id
)

select
    alert_id,                     -- the same for ever
    workspace_id,                 -- null: the source names none
    workspace_name,               -- null: the directory gives none
    kind,                         -- anomaly, drift, woke, budget or exhaustion
    scope,                        -- key, model, member or workspace
    subject_id,                   -- the id (or model) within its scope
    subject_name,                 -- null: the directory gives none
    case
        when closes_at is not null then 'closed'
        when decision = 'expected' then decision
        when decision = 'acknowledged' and coalesce(escalated_date <= said_of_date, true)
        then decision
        when decision = 'snoozed' and $as_of < until then decision
        when escalated_at is not null then 'escalated'
        else 'open'
    end as state,                 -- open, escalated, acknowledged, snoozed, expected or closed
    usage_date,                   -- the day it opened
    last_date,                    -- the last day out of range so far
    credits,                      -- spent on the day it opened; budget: in the cycle by then
    expected,                     -- the typical day; null for a budget
    upper_limit,                  -- the most that was not yet out of range; budget: its threshold
    ratio,                        -- credits / expected; null when nothing was expected
    highest_credits,              -- of its biggest day so far; budget: as credits
    opened_at,                    -- end of the quarter that passed the limit, or of the day
    escalated_at,                 -- end of the day that doubled last; null: not escalated
    closes_at as closed_at,       -- end of the third day within range, or of the cycle; null: open
    cause,                        -- what drove it
    upper(scope[1]) || scope[2:] || ' ' || coalesce('"' || subject_name || '"', subject_id)
    || case
        when scope != 'workspace' and workspace_id is not null
        then ' of ' || coalesce('"' || workspace_name || '"', workspace_id)
        else ''
    end
    || ' ' || what_happened as message,  -- one sentence for a person
    decision,                     -- said of it last: acknowledged, snoozed or expected; or null
    until as snoozed_until,       -- when the snooze ends, or ended; null: not snoozed
    note,                         -- what the person added
    decided_at,                   -- wall clock
    decided_by,                   -- the user of the operating system
    said_of_date,                 -- its last day out of range, as published when that was said
    recipients,                   -- a budget's own, told besides the settings'
    level,                        -- how often it has doubled
    escalated_date,               -- the day that doubled last; null: not escalated
    since_at,                     -- UTC hour from which it spends above usual; or null
    credits_per_hour,             -- what it spends since then, on its last day; or null
    exhausted_on,                 -- of an allowance: when it did, or is to run out
    also,                         -- the wider scopes that it lifted too, a line each; or null
    threshold_percent,            -- of a budget that is a share of the allowance
    allowance_credits,            -- of the plan, for one cycle; null but for a budget
    cycle_start_date,             -- of a budget: the first day of its cycle
    cycle_end_date,               -- the first day of the next
    told_by_alert_id,             -- of a budget: the higher one that was reached the same day
from named
