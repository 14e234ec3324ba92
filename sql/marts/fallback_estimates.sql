-- What the fallbacks of a UTC day took, and by estimate what they saved: the credits that the model
-- they fell from would have taken for as many tokens.
--
-- The basis is what that model itself took a token in the same workspace, over the thirty days that
-- end with this one. Without a basis there is no estimate, nor where nothing served or no tokens
-- were counted: a price is never invented. Credits themselves belong whole to what served.
--
-- looks back: marts.usage_by_model 29 days
-- grain: usage_date, workspace_id?, fallback_from?, model?
with fallen as (
    select distinct workspace_id, fallback_from
    from staging.fallbacks
    where usage_date = $day
),

bases as (
    select
        fallen.workspace_id,
        fallen.fallback_from,
        sum(usage.request_count)::bigint as request_count,
        least(sum(usage.total_tokens), 9223372036854775807)::bigint as total_tokens,
        sum(usage.credits) as credits,
    from fallen
    inner join marts.usage_by_model as usage
        on usage.workspace_id is not distinct from fallen.workspace_id
        -- by its name, or by its name behind its provider's, as LiteLLM states what served
        and fallen.fallback_from in (usage.model, regexp_extract(usage.model, '[^/]*$'))
    where usage.usage_date between $day::date - 29 and $day::date
    group by 1, 2
),

estimates as (
    select
        fallbacks.*,
        bases.request_count as basis_request_count,
        bases.total_tokens as basis_total_tokens,
        bases.credits as basis_credits,
        case
            when fallbacks.model is not null and fallbacks.total_tokens > 0
                and bases.total_tokens > 0
                then
                    round(
                        least(
                            fallbacks.total_tokens::double
                            * (bases.credits::double / bases.total_tokens::double),
                            1e15
                        ),
                        9
                    )::decimal(38, 9)
        end as estimated_credits,
    from staging.fallbacks as fallbacks
    left join bases
        on bases.workspace_id is not distinct from fallbacks.workspace_id
        and bases.fallback_from = fallbacks.fallback_from
    where fallbacks.usage_date = $day
)

select
    usage_date,  -- the UTC day
    workspace_id,  -- null: unassigned
    fallback_from,  -- the model that failed; null: the source does not say which
    model,  -- what served the calls; null when nothing did
    request_count,  -- that fell from the one to the other
    total_tokens,  -- of these requests
    credits,  -- what they took, exact
    basis_request_count,  -- of the model that failed, in the thirty days; null: it has none
    basis_total_tokens,  -- of those
    basis_credits,  -- what those took, exact
    estimated_credits,  -- what it would have taken for these tokens; null: there is no basis
    estimated_credits - credits
        as estimated_saved_credits,  -- below nought: the fallback took more; null as above
from estimates
