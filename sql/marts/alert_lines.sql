-- A day that an alert tells as a line, under the id of the alert that it would be by itself.
--
-- And was, where an hour told of a workspace before anybody could say by which key: whoever was
-- told then that it opened is told that it closes (exports/alerts/outbox.py), when the alert does
-- that tells it now.
--
-- grain: alert_id
with lines as (
    select
        days.*,
        kind,
        expected,
        upper_limit,
        ratio,
        crossed_at,
        max(days.usage_date) over to_the_end as last_date,
        max(days.credits) over to_the_end as highest_credits,
    from marts.alert_days as days
    join marts.spend_anomalies as anomaly
        on anomaly.usage_date = days.usage_date
        and anomaly.workspace_id is not distinct from days.workspace_id
        and anomaly.scope = days.scope
        and anomaly.subject_id = days.subject_id
    where told_as = 'line'
    window to_the_end as (
        partition by
            days.workspace_id, days.scope, days.subject_id,
            first_date, told_by_scope, told_by_subject_id
        order by days.usage_date
        rows between current row and unbounded following
    )
),

told as (
    select
        lines.*,
        alert_id_of(
            spend_identity(
                lines.kind, lines.workspace_id, lines.scope, lines.subject_id, lines.usage_date
            )
        ) as alert_id,
        teller.alert_id as told_by_alert_id,
        teller.workspace_name,
        told_by_scope || ' ' || coalesce('"' || teller.subject_name || '"', told_by_subject_id)
            as told_by,
        teller.closed_at,
        teller.decision as teller_decision,
        teller.snoozed_until as teller_snoozed_until,
        teller.said_of_date,
    from lines
    join marts.budget_alerts as teller
        on teller.usage_date = lines.first_date
        and teller.workspace_id is not distinct from lines.workspace_id
        and teller.scope = told_by_scope
        and teller.subject_id = told_by_subject_id
        and teller.kind not in ('budget', 'exhaustion')
),

decisions as (
    select alert_id, decision, until
    from staging.alert_decisions
)

select
    told.alert_id,          -- what it is, or was, as an alert of its own
    told_by_alert_id,       -- the alert that tells it
    workspace_id,           -- null: the source names none
    workspace_name,         -- null: the directory gives none
    kind,                   -- anomaly, drift or woke
    scope,                  -- model or workspace
    subject_id,             -- the id (or model) within its scope
    case when scope = 'workspace' then workspace_name end
        as subject_name,    -- null: the directory gives none
    usage_date,             -- the day, on which it would have opened
    last_date,              -- its last day that the same alert tells
    credits,                -- spent on the day
    expected,               -- the typical day
    upper_limit,            -- the most that was not yet out of range
    ratio,                  -- credits / expected; null when nothing was expected
    highest_credits,        -- of its biggest day from this one on
    least(coalesce(crossed_at, cast(usage_date + 1 as timestamp)), $as_of)
        as opened_at,       -- end of the quarter that passed the limit, or of the day
    cast(null as timestamp) as escalated_at,  -- always null: the other alert escalates
    closed_at,              -- when the alert closed that tells it; null: open
    'most of it by ' || told_by as cause,  -- whose alert tells it
    format(
        '{}{} {} spent {:,.2f} credits on {}, most of it by {}, whose alert tells it.',
        upper(scope[1]), scope[2:],
        coalesce('"' || if(scope = 'workspace', workspace_name, null) || '"', subject_id),
        cast(credits as double), usage_date, told_by
    ) as message,           -- one sentence for a person
    case when 'expected' in (teller_decision, decision) then 'expected' else teller_decision end
        as decision,        -- said last of the alert that tells it; expected: or of itself
    greatest(teller_snoozed_until, until)
        as snoozed_until,   -- when the longer snooze ends, of the two; null: none
    said_of_date,           -- of the alert that tells it
from told
left join decisions using (alert_id)
