-- A movement of credits: a pack granted with a paid invoice, a day's usage, or a part of a pack
-- taken back because money went back.
--
-- A gateway invoice in `paid` says its pack was delivered: one grant of exactly its credits, in
-- one lot, dated when it was issued (facts/reconciliation.md, section 8). What a refund or a lost
-- dispute takes back is a clawback of that lot, an open dispute holds its part; what was undone
-- since is reversed when the money came back. The order in which usage draws on lots is nowhere
-- stated: a usage movement names none, and what of a part taken back was used before is not said.
--
-- looks back: marts.usage_by_key all days
-- grain: movement_id
select
    'grant_' || invoice_id as movement_id,  -- the same for ever
    workspace_id,  -- null: unassigned
    invoice_id as lot_id,  -- the pack it belongs to
    case kind when 'topup' then 'topup' else 'grant' end
        as kind,  -- grant | topup | usage | clawback | hold | release | adjustment
    credits::decimal(38, 9) as credits,  -- signed: what came in is positive
    issued_at::date as posted_date,  -- UTC
    null::date as corrects_date,  -- for usage of a closed month
    invoice_id,  -- the gateway invoice that bought it
    'Pack of invoice ' || invoice_id as reason,  -- for a person
from marts.invoices
where status = 'paid' and credits > 0
union all
select
    'usage_' || usage_date || '_' || coalesce(workspace_id, '') as movement_id,
    workspace_id,
    null as lot_id,
    'usage' as kind,
    -sum(credits) as credits,
    usage_date as posted_date,
    null as corrects_date,
    null as invoice_id,
    'Usage of ' || usage_date as reason,
from marts.usage_by_key
group by usage_date, workspace_id
union all
select
    'clawback_' || event_id as movement_id,
    workspace_id,
    invoice_id as lot_id,
    case when $credits_refund = 'waive' and event = 'refund' then 'adjustment' else 'clawback' end
        as kind,
    case when kind = 'adjustment' then 0 else -share_credits end as credits,
    created_at::date as posted_date,
    null as corrects_date,
    invoice_id,
    upper(left(event, 1)) || substr(event, 2) || ' ' || event_id || ' of charge ' || charge_id
    || case
        when kind = 'adjustment' then ': waived by the setting credits.refund'
        when share_credits = 0 then ': costs no credits, it corrects an excess'
        when outcome = 'undone' then ', since undone'
        else ''
    end as reason,
from staging.credit_returns
where event = 'refund' or outcome = 'lost'
union all
select
    'reversal_' || event_id as movement_id,
    workspace_id,
    invoice_id as lot_id,
    'clawback' as kind,
    share_credits as credits,
    coalesce(undone_at, created_at)::date as posted_date,
    null as corrects_date,
    invoice_id,
    'Refund ' || event_id || ' of charge ' || charge_id || ' was undone' as reason,
from staging.credit_returns
where event = 'refund' and outcome = 'undone' and $credits_refund = 'clawback'
union all
select
    'hold_' || event_id as movement_id,
    workspace_id,
    invoice_id as lot_id,
    'hold' as kind,
    -share_credits as credits,
    created_at::date as posted_date,
    null as corrects_date,
    invoice_id,
    'Dispute ' || event_id || ' of charge ' || charge_id || ' was opened' as reason,
from staging.credit_returns
where event = 'dispute' and outcome in ('open', 'undone') and $credits_dispute = 'hold'
union all
select
    'release_' || event_id as movement_id,
    workspace_id,
    invoice_id as lot_id,
    'release' as kind,
    share_credits as credits,
    coalesce(undone_at, created_at)::date as posted_date,
    null as corrects_date,
    invoice_id,
    'Dispute ' || event_id || ' of charge ' || charge_id || ' was won' as reason,
from staging.credit_returns
where event = 'dispute' and outcome = 'undone' and $credits_dispute = 'hold'
