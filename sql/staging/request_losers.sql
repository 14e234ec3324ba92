-- A record that does not speak for its request: what it counts as instead, and in what it differs
-- from the record that does.
--
-- grain: gateway, request_id, source_object, source_line
with rankings as materialized (  -- once: they cost more than all the rest
    select *
    from staging.request_rankings
    where contest_date = $day
),

losers as (
    select *
    from rankings
    where usage_date = $day and counts_as <> 'winner'
),

winners as (
    select *
    from rankings
    where counts_as = 'winner'
)

select
    gateway,  -- whose request id it is
    request_id,
    losers.source_object,  -- where the losing record stands
    losers.source_line,  -- physical line there, from 1
    losers.source_name,  -- the [[requests]] source it came by
    losers.usage_date,  -- the day on which it stands
    losers.counts_as,  -- folded, duplicate or corroborating
    case
        when losers.counts_as <> 'folded' then array_to_string(list_filter([
            case when losers.credits <> winners.credits then 'credits' end,
            case when losers.prompt_tokens <> winners.prompt_tokens then 'prompt_tokens' end,
            case
                when losers.completion_tokens <> winners.completion_tokens then 'completion_tokens'
            end,
            case when losers.total_tokens <> winners.total_tokens then 'total_tokens' end,
            case when losers.api_key_id <> winners.api_key_id then 'api_key_id' end,
            case when losers.model <> winners.model then 'model' end,
        ], lambda named: named is not null), ', ')
    end as differs_in,  -- both state it, and it differs
    losers.credits,  -- as the losing record states them, attempts folded
    winners.credits as winner_credits,  -- as they count
from losers
left join winners using (gateway, request_id)
