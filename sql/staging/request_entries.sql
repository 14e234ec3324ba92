-- What a day's requests add up to, as in a ledger: every record that landed, those of contested
-- requests once more with the opposite sign, and the winners of the contests.
--
-- It gives the sums of staging.requests without looking each record up among the contests; both are
-- held against each other every night (marts.conservation).
--
-- kind: view
-- grain: gateway, source_object, source_line, entry
with entries as (
    select
        'landed' as entry, 1 as request_count, gateway, source_name, completed_at, usage_date,
        requests.workspace_id, sources.workspace_id as source_workspace_id, api_key_id, member_id,
        requested_model, model, fallback_from, fallback_depth, status, error_code, prompt_tokens,
        completion_tokens, total_tokens, credits, source_object, source_line,
    from raw.requests as requests
    left join raw.sources as sources using (source_name)
    union all
    select
        'reversed' as entry, -1 as request_count, gateway, source_name, completed_at, usage_date,
        contests.workspace_id, sources.workspace_id as source_workspace_id, api_key_id, member_id,
        requested_model, model, fallback_from, fallback_depth, status, error_code, -prompt_tokens,
        -completion_tokens, -total_tokens, -credits, source_object, source_line,
    from staging.request_contests as contests
    left join raw.sources as sources using (source_name)
    where usage_date = contest_date
    union all
    select
        'won' as entry, 1 as request_count, gateway, source_name, completed_at, usage_date,
        workspace_id, source_workspace_id, api_key_id, member_id, requested_model, model,
        fallback_from, fallback_depth, status, error_code, prompt_tokens, completion_tokens,
        total_tokens, credits, source_object, source_line,
    from staging.request_winners
)

select
    entry,  -- landed, reversed or won
    request_count,  -- 1, or -1 of what is reversed, whose tokens and credits are negative as well
    gateway,
    completed_at,
    usage_date,
    -- as of staging.requests
    coalesce(entries.workspace_id, keys.workspace_id, source_workspace_id) as workspace_id,
    api_key_id,
    member_id,
    requested_model,
    model,
    fallback_from,
    fallback_depth,
    status,
    error_code,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    credits,
    source_object,
    source_line,
from entries
left join staging.key_workspaces as keys using (usage_date, api_key_id)
