-- A losing record that states other credits, tokens, key or served model than the record that
-- counts.
--
-- grain: gateway, request_id, source_object, source_line
-- looks back: staging.request_contests all days, staging.request_winners all days
with losers as (
    select
        records.*,
        winners.credits as winner_credits,
        list_filter([
            case when records.credits <> winners.credits then 'credits' end,
            case when records.prompt_tokens <> winners.prompt_tokens then 'prompt_tokens' end,
            case
                when records.completion_tokens <> winners.completion_tokens then 'completion_tokens'
            end,
            case when records.total_tokens <> winners.total_tokens then 'total_tokens' end,
            case when records.api_key_id <> winners.api_key_id then 'api_key_id' end,
            case when records.model <> winners.model then 'model' end,
        ], lambda named: named is not null) as differences,
    from staging.request_contests as records
    inner join staging.request_winners as winners using (gateway, request_id)
    where
        records.contest_date = records.usage_date
        and (records.source_object, records.source_line)
        <> (winners.source_object, winners.source_line)
)

select
    gateway,  -- whose request id it is
    request_id,
    source_object,  -- where the losing record stands
    source_line,  -- physical line there, from 1
    array_to_string(differences, ', ') as differs_in,  -- both state it, and it differs
    credits,  -- as the losing record states them
    winner_credits,  -- as they count
from losers
where len(differences) > 0
