"""What `meterhouse watch` shows: how far each subject's running total of today has got towards its
limit, and when it would pass it.

The limit of a day is known when the day begins: the night before has stored it as tomorrow's row,
learned from complete days alone. Totals only grow, so whatever is over its limit in an hour is over
it at midnight: the hour says nothing that the night would not have said.
"""

from typing import Any

from pipelines.reader import Reader

PACE_HOURS = 3  # the pace is that of the last hours, or since midnight where that is less
COLUMNS = [
    "subject_id", "subject_name", "scope", "workspace_id", "credits", "upper_limit", "limit_share",
    "credits_per_hour", "crosses_at", "verdict",
]  # fmt: skip

RUNNING = """
    with today as (
        select
            cast(as_of - interval 1 microsecond as date) as usage_date,
            as_of,
            greatest(
                as_of - interval 1 hour * $pace_hours,
                date_trunc('day', as_of - interval 1 microsecond)
            ) as pace_from,
        from ops.snapshot
    ),

    ranges as (
        select ranges.*, as_of, pace_from
        from marts.spend_ranges as ranges
        join today using (usage_date)
        where upper_limit is not null
    ),

    quarters as (
        select workspace_id, api_key_id, member_id, model, credits
        from marts.usage_quarter_hourly as usage
        join today using (usage_date)
        where quarter_at >= pace_from and quarter_at < as_of
    ),

    by_subject as (
        select workspace_id, 'key' as scope, api_key_id as subject_id, credits from quarters
        union all
        select workspace_id, 'model', model, credits from quarters
        union all
        select workspace_id, 'member', member_id, credits from quarters
        union all
        select workspace_id, 'workspace', workspace_id, credits from quarters
    ),

    paces as (
        select workspace_id, scope, subject_id, sum(credits) as credits_lately
        from by_subject
        group by 1, 2, 3
    ),

    told as (
        select
            ranges.*,
            credits / upper_limit as limit_share,
            coalesce(credits_lately, 0)::double / (epoch(as_of - pace_from) / 3600) as pace,
            (upper_limit - credits)::double / nullif(pace, 0) as hours_left,
        from ranges
        left join paces
            on paces.workspace_id is not distinct from ranges.workspace_id
            and paces.scope = ranges.scope
            and paces.subject_id = ranges.subject_id
    )

    select
        usage_date,
        told.workspace_id,
        scope,
        subject_id,
        case scope
            when 'key' then keys.name when 'member' then members.name
            when 'workspace' then workspaces.name
        end as subject_name,
        credits,
        upper_limit,
        round(limit_share, 4) as limit_share,
        round(pace, 9)::decimal(38, 9) as credits_per_hour,
        -- this same day: tomorrow has a limit of its own
        case
            when credits <= upper_limit and hours_left < epoch(usage_date + 1 - as_of) / 3600
            then date_trunc('minute', as_of + to_seconds(hours_left * 3600))
        end as crosses_at,
        verdict,
    from told
    left join staging.keys as keys on keys.api_key_id = subject_id
    left join staging.workspaces as workspaces on workspaces.workspace_id = subject_id
    left join staging.members as members
        on members.member_id = subject_id
        and members.workspace_id is not distinct from told.workspace_id
    order by limit_share desc, scope, subject_id, told.workspace_id
"""


def running_totals(reader: Reader) -> list[dict[str, Any]]:
    """A row for each key, model, member and workspace that has spent today and has a limit, the
    nearest to it first; today is the day of the snapshot's clock.

    `crosses_at` is null for what is over its limit already (`limit_share` says so), or would not be
    before midnight at the pace of the last hours.
    """
    return reader.rows(RUNNING, pace_hours=PACE_HOURS)
